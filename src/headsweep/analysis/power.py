"""Seeds that a sweep needs to detect a difference or to show a margin, their cost, and the command that adds them."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from headsweep.config.overrides import OverrideFinder, command, grid_words
from headsweep.config.study.expansion import composer
from headsweep.errors import UserError
from headsweep.plan.frozen import frozen
from headsweep.report.read.cells import Cell, read_cells, skip_damaged
from headsweep.report.read.select import cell_name, spelled
from headsweep.report.stats.equivalence import against_margin
from headsweep.report.stats.inference import LEAST_SEEDS, Difference, holm, paired_difference
from headsweep.report.stats.power import (
    MOST_SEEDS,
    Requirement,
    detectable,
    equivalence_power,
    not_worse_power,
    power,
    requirement,
    sign_flip_seeds,
)
from headsweep.report.table import tuning
from headsweep.report.table.baseline import Baseline, default_baseline
from headsweep.report.table.columns import decimals_of, human, metric_entry, rounded
from headsweep.report.table.metrics import METRICS, PERCENT
from headsweep.report.table.model import Question
from headsweep.report.table.notes import undecided
from headsweep.report.table.pairing import pair
from headsweep.text import aligned, plural, span
from headsweep.tracking.metric_names import TEST_TOP1
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged


@dataclass(frozen=True)
class Aim:
    """The difference to detect, or the margin to show."""

    points: float  # of test top-1
    power: float  # probability to detect the difference, or to show the margin where there is no difference
    alpha: float  # family-wise error over all differences
    slots: int  # concurrent runs, for the time estimate
    is_margin: bool = False


@dataclass(frozen=True)
class Answer:
    """What one cell needs."""

    cell: Cell
    needed: Requirement  # to detect the difference, or to show that it is within the margin
    not_worse: Requirement | None  # to show that the difference is above -margin; None without a margin
    settled: str  # the difference and its p, if it is significant by now: it needs no more seeds
    withheld: str | None  # why the table makes no claim about it, whatever its p


Found = Sequence[Answer]
USUAL_SEEDS = (5, 10, 20)  # numbers of seeds that studies train


def advise(sweep: SweepFolder, baseline: Baseline, aim: Aim) -> tuple[str, tuple[Damaged, ...]]:
    """Return the seeds that the differences of `sweep` need and how to add them, and the damage of runs left out.

    Args:
        sweep: has runs with several seeds.
        baseline: what its cells are compared with; empty: the head of the first cell.
        aim: the difference to detect, or the margin to show.

    Raises:
        UserError: no two cells can be compared, or none has two finished seeds.
    """
    screening = sweep.screening()
    return skip_damaged(
        sweep.runs(),
        lambda folders, damages: (
            _advice(read_cells(folders, screening, sweep.design().variants), sweep, baseline, aim, len(damages)),
            damages,
        ),
    )


def _advice(cells: Sequence[Cell], sweep: SweepFolder, baseline: Baseline, aim: Aim, damaged: int) -> str:
    design = sweep.design()
    lost = len(sweep.planned()) - len(sweep.runs()) + damaged
    tune = tuning.varying(cells, design.tune)
    paired = pair(cells, Question(baseline, design=design, tune=tune, mark=True))
    axes = paired.axes
    pairs = [(cell, base) for cell, base, _ in paired.groups() if base is not None and base is not cell]
    name = spelled(baseline or default_baseline(cells, design))
    if not pairs:
        raise UserError(f"{sweep.name}: expected a cell to compare with {name}, found none; choose another --baseline")
    family = paired.differences + lost  # as in the table
    level = aim.alpha / family
    expected = {seed for cell in cells for seed in cell.seeds} if lost else set()
    no_claims = undecided.no_claims(bool(paired.unchosen), bool(paired.faults))
    withheld = [_withheld(*both, expected) or no_claims for both in pairs]
    found = _answers(pairs, withheld, aim, family)
    if all(answer.needed.n < 2 for answer in found):
        more = _command(cells, sweep, "seeds=3")
        raise UserError(
            f"{sweep.name}: expected two finished seeds of a cell and of {name} to estimate a variance; "
            f"add seeds: {more}"
        )
    what = f"detect a difference of {aim.points:g} points in top-1 from {name}\n"
    if aim.is_margin:
        what = f"show that a true difference of 0 from {name} is within {aim.points:g} points of top-1\n"
    heading = f"{sweep.name}: seeds to {what}with power {aim.power:g} at p < {aim.alpha:g}"
    if family > 1:
        heading += f", corrected for {family} differences (Bonferroni: p < {level:.3g} each)"
    plans = _plans(found, cells, sweep, aim, axes)
    return "\n".join(
        [heading, "", _table(found, axes, aim), "", *_notes(level, aim), *plans, *_within_reach(found, level, aim)]
    )


def _withheld(cell: Cell, base: Cell, expected: Collection[int]) -> str | None:
    """Return which runs of the two have no number, for which the table makes no claim."""
    return undecided.gap(cell, METRICS["top1"], expected) or undecided.gap(base, METRICS["top1"], expected)


def _answers(pairs: Sequence[tuple[Cell, Cell]], withheld: Sequence[str | None], aim: Aim, family: int) -> Found:
    """Return what each cell needs against its baseline, corrected for a family of as many differences."""
    level = aim.alpha / family
    values = [(cell.by_seed(TEST_TOP1), base.by_seed(TEST_TOP1)) for cell, base in pairs]
    known = [None if why else paired_difference(*both) for both, why in zip(values, withheld, strict=True)]
    settled = _settled(known, aim, family)
    effect, found = aim.points / 100, []
    for (cell, _), (own, others), text, why in zip(pairs, values, settled, withheld, strict=True):
        differences = [own[seed] - others[seed] for seed in own if seed in others]
        needed = requirement(differences, effect, aim.power, level, equivalence_power if aim.is_margin else power)
        not_worse = requirement(differences, effect, aim.power, level, not_worse_power) if aim.is_margin else None
        found.append(Answer(cell, needed, not_worse, text, why))
    return found


def _settled(differences: Sequence[Difference | None], aim: Aim, family: int) -> list[str]:
    """Return for each difference its text if it is significant, or equivalent at the margin, after correction."""
    enough = [it if it is not None and it.n >= LEAST_SEEDS else None for it in differences]
    ps = holm([None if it is None else it.p for it in enough], family)
    tests = [against_margin(it, aim.points / 100) if it is not None and aim.is_margin else None for it in enough]
    within = holm([None if test is None else test.equivalent for test in tests], family)
    texts = []
    for difference, p, both in zip(differences, ps, within, strict=True):
        found = next((it for it in (both, p) if it is not None and it < aim.alpha), None)
        if difference is None or found is None:
            texts.append("")
        else:
            shown = metric_entry(difference, PERCENT, "+")
            texts.append(human(f"{rounded(100 * difference.mean, shown.decimals, '+')}, p = {found:.2g}"))
    return texts


def _table(found: Found, axes: Sequence[str], aim: Aim) -> str:
    rows = [("CELL", "N", "SD OF DIFFERENCES", "SEEDS", "SEEDS (UPPER CI)", "DETECTABLE NOW")]
    if aim.is_margin:
        rows = [("CELL", "N", "SD OF DIFFERENCES", "NOT WORSE", "EQUIVALENT", "EQUIVALENT (UPPER CI)")]
    return aligned([*rows, *(_row(answer, axes) for answer in found)])


def _row(answer: Answer, axes: Sequence[str]) -> tuple[str, ...]:
    name, needed = cell_name(answer.cell, axes), answer.needed
    if needed.spread is None or needed.detectable is None:
        why = "needs two seeds" if needed.n < 2 else "no spread: all differences are equal"
        return (name, str(needed.n), why, "-", "-", "-")
    low, high = needed.spread.low, needed.spread.high
    decimals = decimals_of(100 * low)
    shown = [f"{100 * value:.{decimals}f}" for value in (needed.spread.deviation, low, high)]
    deviation = f"{shown[0]} ({shown[1]} to {shown[2]})"
    first = (name, str(needed.n), deviation)
    if answer.settled:
        return (*first, "settled", "-", "-")
    if answer.not_worse is not None:
        return (*first, *map(_seeds, (answer.not_worse.seeds, needed.seeds, needed.seeds_upper)))
    return (*first, _seeds(needed.seeds), _seeds(needed.seeds_upper), _points(needed.detectable))


def _points(share: float) -> str:
    return f"{100 * share:.{decimals_of(100 * share)}f}"


def _seeds(count: int | None) -> str:
    return f"> {MOST_SEEDS}" if count is None else str(count)


def _notes(level: float, aim: Aim) -> list[str]:
    spread = "SD: standard deviation of the differences paired by seed, in points, with its 95 % interval (chi-square)."
    if aim.is_margin:
        return [
            spread,
            "NOT WORSE: seeds that show a difference above the negative margin (one-sided test). EQUIVALENT: within",
            "the margin (two one-sided tests). UPPER CI: for the upper end of that interval. If the true difference",
            "is not 0 but close to the margin, more seeds are needed.",
        ]
    return [
        spread,
        "SEEDS (UPPER CI): for the upper end of that interval. DETECTABLE NOW: minimum detectable effect of the",
        "seeds so far, in points.",
        f"A sign-flip permutation test reaches p < {level:.3g} with {sign_flip_seeds(level)} seeds or more.",
    ]


def _plans(found: Found, cells: Sequence[Cell], sweep: SweepFolder, aim: Aim, axes: Sequence[str]) -> list[str]:
    """Return the seeds that suffice for every cell that is not settled.

    They are computed for the estimated spread, and for its upper confidence limit.
    """
    settled = [f"{cell_name(answer.cell, axes)} ({answer.settled})" for answer in found if answer.settled]
    withheld = [f"{cell_name(answer.cell, axes)} ({answer.withheld})" for answer in found if answer.withheld]
    lines = [f"settled, left out below: {'; '.join(settled)}"] if settled else []
    lines += [f"undecided in the table, whatever the p: {'; '.join(withheld)}"] if withheld else []
    rest = [answer for answer in found if not answer.settled and answer.needed.spread is not None]
    plans = {"": [answer.needed.seeds for answer in rest], "upper CI: ": [answer.needed.seeds_upper for answer in rest]}
    if aim.is_margin:
        plans = {"not worse: ": [answer.not_worse.seeds for answer in rest if answer.not_worse]} | {
            f"equivalent, {when}" if when else "equivalent: ": counts for when, counts in plans.items()
        }
    commands: list[str] = []
    for when, counts in plans.items():
        if all(count is not None for count in counts) and counts:
            seeds = max(count for count in counts if count is not None)
            lines.append(f"{when}seeds={seeds}: {_cost(cells, seeds, aim.slots)}")
            if not commands:
                commands.append(_command(cells, sweep, f"seeds={seeds}"))
                lines.append(f"  {commands[0]}")
    if not rest and settled:
        lines.append("no difference needs more seeds")
    return ["", *lines] if lines else []


def _within_reach(found: Found, level: float, aim: Aim) -> list[str]:
    """Return what usual numbers of seeds show, where some cell needs more; by the estimated spreads."""
    rest = [answer.needed for answer in found if not answer.settled and answer.needed.spread is not None]
    if all(it.seeds is not None and it.seeds <= USUAL_SEEDS[-1] for it in rest):
        return []
    power_of = equivalence_power if aim.is_margin else power
    least = {
        n: max(detectable(n, it.spread.deviation, aim.power, level, power_of) for it in rest if it.spread)
        for n in USUAL_SEEDS
    }
    shown = ", ".join(f"{_points(points)} points with {n} seeds" for n, points in least.items())
    what = "smallest margin that can be shown" if aim.is_margin else "minimum detectable effect"
    return [
        "",
        f"Some cells need more than {USUAL_SEEDS[-1]} seeds, which few studies can train. Within reach, as the {what}",
        f"of every cell that is not settled and has an estimated spread: {shown}.",
    ]


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
    return command([*grid_words(without_seed), seeds], grid=True)
