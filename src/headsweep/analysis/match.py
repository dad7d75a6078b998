"""Settings of equal size: for each cell of a grid the width of its head, or how many heads, nearest to a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from headsweep.config import RunConfig
from headsweep.config.auto_batch_size import AUTO, KEY
from headsweep.config.expansion import composer, read_grid
from headsweep.config.grid import Cell
from headsweep.config.overrides import Speller, Spelling, command, grids, words
from headsweep.config.schema import MOST_HEADS
from headsweep.errors import ConfigError
from headsweep.plan.expand import expand
from headsweep.plan.plan import Lookup
from headsweep.report.table.baseline import Baseline
from headsweep.report.table.columns import human, rounded
from headsweep.run.train_run import preflight
from headsweep.text import aligned

MEASURES = {"params": "parameters", "flops": "flops"}  # what is asked -> its name in a run's cost


@dataclass(frozen=True)
class Wish:
    """What is to be matched."""

    measure: str  # a key of MEASURES
    budget: int | None  # of the whole model; None: that of the baseline, in each cell
    baseline: Baseline  # overrides that make a cell the one whose budget it gets
    vary: str  # "width" or "heads"
    share: float  # of the budget, by which a setting may miss it


@dataclass(frozen=True)
class Match:
    """The setting of a cell that is nearest to its budget."""

    run: RunConfig
    varied: str | None  # the key that was varied; None where the head has none
    value: int | None  # of that key
    size: int
    head_size: int
    budget: int

    @property
    def deviation(self) -> float:
        """From the budget, as a share of it."""
        return self.size / self.budget - 1


def match(arguments: Sequence[str], wish: Wish) -> tuple[str, bool]:
    """The settings for the cells of `python src/train.py -m ARGUMENTS`, with the commands that train them; is any near?

    Raises:
        UserError: a cell is not valid, or the baseline is none. What Hydra raises for a wrong override.
    """
    seeds = [word for word in arguments if word.partition("=")[0] in ("seed", "seeds")]
    with composer() as compose:
        speller = Speller(compose)
        request, _ = read_grid([word for word in arguments if word not in seeds])
        lookup = Lookup()
        expansion = expand(request, _no_fit, lookup, say=lambda line: None)
        expansion.runs()  # raises if one is not valid
        cells = [cell for cell in expansion.cells if isinstance(cell, Cell)]
        found = [_match(cell, speller, wish, lookup) for cell in cells]
        matches = [one for at, one in enumerate(found) if one.run not in [other.run for other in found[:at]]]
        spelled = [
            {key: value for key, value in cell.items() if key != "seed"}
            for cell in speller.spell([one.run for one in matches])
        ]
    names = _names(spelled, matches)
    is_near = [abs(one.deviation) <= wish.share for one in matches]
    near = [cell for cell, is_ in zip(spelled, is_near, strict=True) if is_]
    far = [(name, one) for name, one, is_ in zip(names, matches, is_near, strict=True) if not is_]
    lines = [_table(names, matches, wish), "", *_far(far, wish)]
    return "\n".join([*lines, *(command([*axes, *seeds], grid=True) for axes in grids(near))]), bool(near)


def _no_fit(runs: Sequence[RunConfig]) -> int:
    raise ConfigError(KEY, AUTO, "parameters and FLOPs do not depend on it; leave it out")


def _names(cells: Sequence[Spelling], matches: Sequence[Match]) -> list[str]:
    """By head, heads, what was varied, and what else differs."""
    differing = [key for cell in cells for key in cell if len({str(other.get(key)) for other in cells}) > 1]
    shown = dict.fromkeys(("head", "heads", *differing))
    names = [
        {key: cell[key] for key in shown if key in cell} | ({one.varied: str(one.value)} if one.varied else {})
        for cell, one in zip(cells, matches, strict=True)
    ]
    return [" ".join(words(name)) for name in names]


def _match(cell: Cell, speller: Speller, wish: Wish, lookup: Lookup) -> Match:
    run = _located(cell.parse(), lookup)
    budget = wish.budget or _size(_baseline(cell, speller, wish.baseline, lookup), wish)[0]
    varied, values, change = _knob(run, wish.vary)
    sized = cache(lambda value: _size(change(value), wish))  # looked at up to twice
    best = _nearest(values, lambda value: sized(value)[0], budget) if varied else None
    chosen = run if best is None else change(best)
    size, head_size = _size(run, wish) if best is None else sized(best)
    return Match(chosen, varied, best, size, head_size, budget)


def _baseline(cell: Cell, speller: Speller, baseline: Baseline, lookup: Lookup) -> RunConfig:
    """The cell with the overrides of the baseline; another head has options of its own."""
    baseline = {"head" if key == "head.name" else key: value for key, value in baseline.items()}  # a group is chosen
    gone = tuple(f"{key}=" for key in baseline) + ("head.",) * ("head" in baseline)
    kept = [word for word in cell.overrides if not word.startswith(gone)]
    found = speller.grid.cell([*kept, *(f"{key}={value}" for key, value in baseline.items())])
    return _located(found.parse(), lookup)


def _located(run: RunConfig, lookup: Lookup) -> RunConfig:
    """Return the run with the number of classes, which is counted where the configuration does not give it."""
    return run if run.dataset.num_classes else lookup.resolved([run])[0]


def _size(run: RunConfig, wish: Wish) -> tuple[int, int]:
    cost, name = preflight(run), MEASURES[wish.measure]
    return cost[name], cost[f"head_{name}"]


def _knob(run: RunConfig, vary: str) -> tuple[str | None, Sequence[int], Callable[[int], RunConfig]]:
    """What is varied of a run, its values, and the run with one of them."""
    if vary == "heads":
        return "heads", range(1, MOST_HEADS + 1), lambda value: replace(run, heads=value)
    option = next(iter(run.head.widths), None)
    if option is None:
        return None, (), lambda value: run
    values = run.head.widths[option]
    return f"head.{option}", values, lambda value: replace(run, head=replace(run.head, **{option: value}))


def _nearest(values: Sequence[int], size: Callable[[int], int], budget: int) -> int:
    """The value whose size is nearest to the budget; sizes grow with the values."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if size(values[middle]) < budget:
            low = middle + 1
        else:
            high = middle
    return min(values[max(0, low - 1) : low + 1], key=lambda value: abs(size(value) - budget))


def _table(names: Sequence[str], matches: Sequence[Match], wish: Wish) -> str:
    rows = [("CELL", wish.measure.upper(), "OF THE HEAD", "BUDGET", "DEVIATION")]
    for name, one in zip(names, matches, strict=True):
        deviation = human(rounded(100 * one.deviation, 1, "+")) + " %"
        rows.append((name, f"{one.size:,}", f"{one.head_size:,}", f"{one.budget:,}", deviation))
    return aligned(rows)


def _far(matches: Sequence[tuple[str, Match]], wish: Wish) -> list[str]:
    """The names of those whose nearest setting is no match, and why."""
    if not matches:
        return []
    limit = f"{wish.share:.0%}".replace("%", " %")
    lines = [f"not within {limit} of the budget, and left out of the commands:"]
    for name, one in matches:
        why = f"no {one.varied} comes nearer" if one.varied else "the head has no width; --vary heads changes how many"
        lines.append(f"  {name}: {why}")
    return [*lines, ""]
