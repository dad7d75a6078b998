"""Match sizes: for each cell of a grid, the head width or the number of heads nearest to a parameter or FLOP budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from headsweep.config import RunConfig
from headsweep.config.auto_batch_size import AUTO, KEY
from headsweep.config.overrides import OverrideFinder, Overrides, command, grid_words, words
from headsweep.config.schema import MOST_HEADS
from headsweep.config.study.expansion import composer, read_grid
from headsweep.config.study.grid import Cell
from headsweep.config.study.words import spelled_for_hydra
from headsweep.errors import ConfigError
from headsweep.plan.expand import expand
from headsweep.plan.lookup import Lookup
from headsweep.report.table.baseline import Baseline
from headsweep.report.table.columns import human, rounded
from headsweep.run.train_run import preflight
from headsweep.text import aligned

MEASURES = {"params": "parameters", "flops": "flops"}  # option -> name in a run's cost


@dataclass(frozen=True)
class Target:
    """What to match."""

    measure: str  # a key of MEASURES
    budget: int | None  # of the whole model; None: that of the baseline, in each cell
    baseline: Baseline  # overrides that turn a cell into its baseline
    vary: str  # "width" or "heads"
    share: float  # tolerance, as a share of the budget

    def is_met(self, found: Match) -> bool:
        """Return whether a cell is within the tolerance."""
        return abs(found.deviation) <= self.share


@dataclass(frozen=True)
class Match:
    """The setting of a cell nearest to its budget."""

    run: RunConfig
    varied: str | None  # the key that was varied; None where the head has none
    value: int | None  # of that key
    size: int
    head_size: int
    budget: int

    @property
    def deviation(self) -> float:
        """Relative to the budget."""
        return self.size / self.budget - 1


def match(arguments: Sequence[str], target: Target) -> tuple[str, bool]:
    """Return settings and commands for the cells of `headsweep train -m ARGUMENTS`, and if any is in tolerance.

    Raises:
        UserError: a cell or the baseline is not valid. What Hydra raises for a wrong override.
    """
    seeds = [word for word in arguments if word.partition("=")[0] in ("seed", "seeds")]
    with composer() as compose:
        finder = OverrideFinder(compose)
        request, _ = read_grid([spelled_for_hydra(word) for word in arguments if word not in seeds])
        lookup = Lookup()
        expansion = expand(request, _no_fit, lookup, say=lambda line: None)
        expansion.runs()  # raises if one is not valid
        cells = [cell for cell in expansion.cells if isinstance(cell, Cell)]
        found = [_match(cell, finder, target, lookup) for cell in cells]
        matches = [one for at, one in enumerate(found) if one.run not in [other.run for other in found[:at]]]
        spelled = [
            {key: value for key, value in cell.items() if key != "seed"}
            for cell in finder.find([one.run for one in matches])
        ]
    names = _names(spelled, matches)
    near = [cell for cell, one in zip(spelled, matches, strict=True) if target.is_met(one)]
    far = [(name, one) for name, one in zip(names, matches, strict=True) if not target.is_met(one)]
    lines = [_table(names, matches, target), "", *_far(far, target)]
    commands = [command([*grid_words(near), *seeds], grid=True)] if near else []
    return "\n".join([*lines, *commands]), bool(near)


def _no_fit(runs: Sequence[RunConfig]) -> int:
    raise ConfigError(KEY, AUTO, "parameters and FLOPs do not depend on it; leave it out")


def _names(cells: Sequence[Overrides], matches: Sequence[Match]) -> list[str]:
    """Name cells by head, heads, the varied key, and other keys that differ."""
    differing = [key for cell in cells for key in cell if len({str(other.get(key)) for other in cells}) > 1]
    shown = dict.fromkeys(("head", "heads", *differing))
    names = [
        {key: cell[key] for key in shown if key in cell} | ({one.varied: str(one.value)} if one.varied else {})
        for cell, one in zip(cells, matches, strict=True)
    ]
    return [" ".join(words(name)) for name in names]


def _match(cell: Cell, finder: OverrideFinder, target: Target, lookup: Lookup) -> Match:
    run = _located(cell.parse(), lookup)
    budget = target.budget or _size(_baseline(cell, finder, target.baseline, lookup), target)[0]
    varied, values, change = _varied(run, target.vary)
    sized = cache(lambda value: _size(change(value), target))  # needed up to twice
    best = _nearest(values, lambda value: sized(value)[0], budget) if varied else None
    chosen = run if best is None else change(best)
    size, head_size = _size(run, target) if best is None else sized(best)
    return Match(chosen, varied, best, size, head_size, budget)


def _baseline(cell: Cell, finder: OverrideFinder, baseline: Baseline, lookup: Lookup) -> RunConfig:
    """Return the cell with the overrides of the baseline; options of the replaced head are dropped."""
    baseline = {"head" if key == "head.name" else key: value for key, value in baseline.items()}  # a config group
    gone = tuple(f"{key}=" for key in baseline) + ("head.",) * ("head" in baseline)
    kept = [word for word in cell.overrides if not word.startswith(gone)]
    found = finder.grid.cell([*kept, *(f"{key}={value}" for key, value in baseline.items())])
    return _located(found.parse(), lookup)


def _located(run: RunConfig, lookup: Lookup) -> RunConfig:
    """Fill in the number of classes, which some data sets take from their images."""
    return run if run.dataset.num_classes else lookup.resolved([run])[0]


def _size(run: RunConfig, target: Target) -> tuple[int, int]:
    cost, name = preflight(run), MEASURES[target.measure]
    return cost[name], cost[f"head_{name}"]


def _varied(run: RunConfig, vary: str) -> tuple[str | None, Sequence[int], Callable[[int], RunConfig]]:
    """Return the key to vary, its values, and a function from a value to the run."""
    if vary == "heads":
        return "heads", range(1, MOST_HEADS + 1), lambda value: replace(run, heads=value)
    option = next(iter(run.head.widths), None)
    if option is None:
        return None, (), lambda value: run
    values = run.head.widths[option]
    return f"head.{option}", values, lambda value: replace(run, head=replace(run.head, **{option: value}))


def _nearest(values: Sequence[int], size: Callable[[int], int], budget: int) -> int:
    """Return the value whose size is nearest to the budget; sizes grow with values."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if size(values[middle]) < budget:
            low = middle + 1
        else:
            high = middle
    return min(values[max(0, low - 1) : low + 1], key=lambda value: abs(size(value) - budget))


def _table(names: Sequence[str], matches: Sequence[Match], target: Target) -> str:
    rows = [("CELL", target.measure.upper(), "IN THE HEAD", "BUDGET", "DEVIATION")]
    for name, one in zip(names, matches, strict=True):
        deviation = human(rounded(100 * one.deviation, 1, "+")) + " %"
        rows.append((name, f"{one.size:,}", f"{one.head_size:,}", f"{one.budget:,}", deviation))
    return aligned(rows)


def _far(matches: Sequence[tuple[str, Match]], target: Target) -> list[str]:
    """List the cells without a setting in tolerance, and why."""
    if not matches:
        return []
    lines = [f"not within {100 * target.share:.4g} % of the budget, left out of the commands:"]
    for name, one in matches:
        why = f"no value of {one.varied} is nearer" if one.varied else "the head has no width; try --vary heads"
        lines.append(f"  {name}: {why}")
    return [*lines, ""]
