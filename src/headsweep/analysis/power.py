"""Seeds that a sweep needs to detect a difference, their cost, and the command that adds them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headsweep.config.expansion import composer
from headsweep.config.overrides import OverrideFinder, command, grids
from headsweep.errors import UserError
from headsweep.plan.frozen import frozen
from headsweep.plan.preview import span
from headsweep.report.read.cells import Cell, read_cells, skip_damaged
from headsweep.report.read.select import cell_name, spelled
from headsweep.report.stats.power import MOST_SEEDS, Requirement, requirement, sign_flip_seeds
from headsweep.report.table import tuning
from headsweep.report.table.baseline import Baseline, default_baseline
from headsweep.report.table.model import Question
from headsweep.report.table.pairing import pair
from headsweep.text import aligned, plural
from headsweep.tracking.metric_names import TEST_TOP1
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged


@dataclass(frozen=True)
class Aim:
    """The difference to detect."""

    difference: float  # in points of test top-1
    power: float  # probability to detect it
    alpha: float  # family-wise error over all differences
    slots: int  # concurrent runs, for the time estimate


Found = Sequence[tuple[Cell, Requirement]]


def advise(sweep: SweepFolder, baseline: Baseline, aim: Aim) -> tuple[str, tuple[Damaged, ...]]:
    """Return the seeds that the differences of `sweep` need and how to add them, and the damage of runs left out.

    Args:
        sweep: has runs with several seeds.
        baseline: what its cells are compared with; empty: the head of the first cell.
        aim: the difference to detect.

    Raises:
        UserError: no two cells can be compared, or none has two finished seeds.
    """
    screening = sweep.screening()
    return skip_damaged(
        sweep.runs(),
        lambda folders, damages: (
            _advice(read_cells(folders, screening, sweep.design().variants), sweep, baseline, aim),
            damages,
        ),
    )


def _advice(cells: Sequence[Cell], sweep: SweepFolder, baseline: Baseline, aim: Aim) -> str:
    design = sweep.design()
    tune = tuning.varying(cells, design.tune)
    paired = pair(cells, Question(baseline, design=design, tune=tune, mark=True))
    axes = paired.axes
    pairs = [(cell, base) for cell, base, _ in paired.groups() if base is not None and base is not cell]
    name = spelled(baseline or default_baseline(cells, design))
    if not pairs:
        raise UserError(f"{sweep.name}: expected a cell to compare with {name}, found none; choose another --baseline")
    level = aim.alpha / len(pairs)
    found = [
        (cell, requirement(_differences(cell, base), aim.difference / 100, aim.power, level)) for cell, base in pairs
    ]
    if all(needed.n < 2 for _, needed in found):
        more = _command(cells, sweep, "seeds=3")
        raise UserError(
            f"{sweep.name}: expected two finished seeds of a cell and of {name} to estimate a variance; "
            f"add seeds: {more}"
        )
    heading = (
        f"{sweep.name}: seeds to detect a difference of {aim.difference:g} points in top-1 from {name}\n"
        f"with power {aim.power:g} at p < {aim.alpha:g}"
    )
    if len(pairs) > 1:
        heading += f", corrected for {len(pairs)} differences (Bonferroni: p < {level:.3g} each)"
    return "\n".join([heading, "", _table(found, axes), "", *_notes(level), *_plans(found, cells, sweep, aim)])


def _differences(cell: Cell, baseline: Cell) -> list[float]:
    values, others = cell.by_seed(TEST_TOP1), baseline.by_seed(TEST_TOP1)
    return [values[seed] - others[seed] for seed in values if seed in others]


def _table(found: Found, axes: Sequence[str]) -> str:
    rows = [("CELL", "N", "SD OF DIFFERENCES", "SEEDS", "SEEDS (UPPER CI)", "DETECTABLE NOW")]
    return aligned([*rows, *(_row(cell, needed, axes) for cell, needed in found)])


def _row(cell: Cell, needed: Requirement, axes: Sequence[str]) -> tuple[str, ...]:
    name = cell_name(cell, axes)
    if needed.spread is None or needed.detectable is None:
        why = "needs two seeds" if needed.n < 2 else "no spread: all differences are equal"
        return (name, str(needed.n), why, "-", "-", "-")
    low, high = needed.spread.low, needed.spread.high
    deviation = f"{needed.spread.deviation:.2%} ({low:.2%} to {high:.2%})".replace("%", "")
    return (
        name,
        str(needed.n),
        deviation,
        _seeds(needed.seeds),
        _seeds(needed.seeds_upper),
        f"{100 * needed.detectable:.2f}",
    )


def _seeds(count: int | None) -> str:
    return f"> {MOST_SEEDS}" if count is None else str(count)


def _notes(level: float) -> list[str]:
    return [
        "SD: standard deviation of the differences paired by seed, in points, with its 95 % interval (chi-square).",
        "SEEDS (UPPER CI): for the upper end of that interval. DETECTABLE NOW: minimum detectable effect of the",
        "seeds so far, in points.",
        f"A sign-flip permutation test reaches p < {level:.3g} with {sign_flip_seeds(level)} seeds or more.",
    ]


def _plans(found: Found, cells: Sequence[Cell], sweep: SweepFolder, aim: Aim) -> list[str]:
    """Return the seeds that suffice for every cell: for the estimated spread, and for its upper confidence limit."""
    known = [needed for _, needed in found if needed.spread is not None]
    plans = {"": [needed.seeds for needed in known], "upper CI: ": [needed.seeds_upper for needed in known]}
    lines = []
    for when, counts in plans.items():
        if all(count is not None for count in counts) and counts:
            seeds = max(count for count in counts if count is not None)
            lines.append(f"{when}seeds={seeds}: {_cost(cells, seeds, aim.slots)}")
            if not when:
                lines.append(f"  {_command(cells, sweep, f'seeds={seeds}')}")
    return ["", *lines] if lines else []


def _cost(cells: Sequence[Cell], seeds: int, slots: int) -> str:
    """Return the missing runs for `seeds` seeds of all cells, and their training time."""
    missing = [sum(seed not in cell.by_seed(TEST_TOP1) for seed in range(seeds)) for cell in cells]
    if not any(missing):
        return "no run is missing"
    runs = f"{plural(sum(missing), 'more run')} of {plural(len(cells), 'cell')}"
    times = [_seconds(cell) for cell in cells]
    if any(time is None and count for time, count in zip(times, missing, strict=True)):
        return f"{runs}, of unknown time: not every cell has a finished run"
    seconds = sum(time * count for time, count in zip(times, missing, strict=True) if time is not None)
    return f"{runs}, about {span(seconds / slots)} of training, {plural(slots, 'concurrent run')}"


def _seconds(cell: Cell) -> float | None:
    clocks = [run.result.clock for run in cell.finished if run.result is not None]
    times = [clock["train_seconds"] for clock in clocks if "train_seconds" in clock]
    return statistics.mean(times) if times else None


def _command(cells: Sequence[Cell], sweep: SweepFolder, seeds: str) -> str:
    """Return the shortest command that adds seeds to the cells of a sweep."""
    output = sweep.output.path
    runs = [frozen(run.folder) for cell in cells for run in cell.runs[:1] if run.folder]
    runs = [replace(run, paths=replace(run.paths, output=str(output.resolve()))) for run in runs]
    with composer() as compose:
        found_overrides = OverrideFinder(compose).find(runs)
    without_seed = [{key: value for key, value in cell.items() if key != "seed"} for cell in found_overrides]
    return " && ".join(command([*words, seeds], grid=True) for words in grids(without_seed))
