"""Choose the setting of each arm on validation images; the numbers on test images play no part in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headsweep.config.values import canonical
from headsweep.errors import UserError
from headsweep.report.read.axes import group_of
from headsweep.report.read.cells import MISSING, Cell, Run
from headsweep.report.read.select import cell_name, spelled
from headsweep.report.stats.selection import choose, edge
from headsweep.report.table.metrics import METRICS, Metric, validation_metric
from headsweep.text import plural, shortened
from headsweep.tracking.run_record import RunState

MOST_NAMED = 5  # arms
_LOST = (RunState.failed, RunState.diverged)


@dataclass(frozen=True)
class Setting:
    """One of the settings that were tried for an arm."""

    cell: Cell
    values: tuple[str, ...]  # of the tuned keys, in their order
    val: Mapping[int, float]  # seed -> metric on the validation images after the last epoch
    test: Mapping[int, float]  # seed -> compared metric
    lost: int  # runs that diverged, failed or were screened out, or have no finite metric: the setting counts as worst


@dataclass(frozen=True)
class Arm:
    """The cells that agree in all but the tuned keys."""

    settings: tuple[Setting, ...]  # in the order of the plan
    at: int  # index of the chosen one
    tied: int  # settings that are as good as the chosen one, itself included
    edges: tuple[str, ...]  # where the chosen one is at the edge of what was tried, e.g. "lr at the upper edge"

    @property
    def chosen(self) -> Setting:
        """The setting with the best mean over seeds of the validation metric, the first of equal ones."""
        return self.settings[self.at]


def arms(cells: Sequence[Cell], axes: Sequence[str], keys: Sequence[str], metric: str) -> tuple[Arm, ...]:
    """Choose the setting of each arm among the cells that differ in the tuned keys alone.

    Args:
        cells: in the order of the plan.
        axes: the keys beside head and heads that distinguish cells.
        keys: the tuned ones.
        metric: the compared one.
    """
    others = without(axes, keys)
    members: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        members.setdefault(tuple(canonical(cell.value(key)) for key in ("head", "heads", *others)), []).append(cell)
    return tuple(_arm(found, keys, metric) for found in members.values())


def without(axes: Sequence[str], keys: Collection[str]) -> tuple[str, ...]:
    """Return the axes that are not tuned."""
    tuned = set(map(group_of, keys))
    return tuple(axis for axis in axes if group_of(axis) not in tuned)


def _arm(cells: Sequence[Cell], keys: Sequence[str], metric: str) -> Arm:
    settings = tuple(_setting(cell, keys, metric) for cell in cells)
    selecting = validation_metric(metric)
    choice = choose([None if setting.lost else selecting.scores(setting.val) for setting in settings])
    return Arm(settings, choice.at, choice.tied, tuple(_edges(settings, choice.at, keys)))


def _setting(cell: Cell, keys: Sequence[str], metric: str) -> Setting:
    selecting = validation_metric(metric)
    return Setting(
        cell=cell,
        values=tuple(MISSING if (value := cell.value(key)) is None else str(value) for key in keys),
        val=selecting.by_seed(cell),
        test=METRICS[metric].by_seed(cell),
        lost=sum(_is_lost(run, selecting) for run in cell.runs),
    )


def _is_lost(run: Run, selecting: Metric) -> bool:
    if run.finished:
        return selecting.of(run) is None
    return _has_ended(run)


def _edges(settings: Sequence[Setting], at: int, keys: Sequence[str]) -> Iterator[str]:
    for key, values in zip(keys, zip(*(setting.values for setting in settings), strict=True), strict=True):
        try:
            numbers = [float(value) for value in values if value != MISSING]
            side = edge(float(values[at]), numbers)
        except ValueError:  # text has no order
            continue
        if side:
            yield f"{key.rpartition('.')[2]} at the {side} edge"


def faults(found: Sequence[Arm], axes: Sequence[str], metric: str) -> Iterator[str]:
    """Yield what forbids a comparison of the arms; `axes` are those that are not tuned.

    None of these sentences depends on test images, but for whether there are any.
    """
    if METRICS[metric].logged_as.startswith("val/"):
        yield (
            f"SELECTED ON THE REPORTED IMAGES: {metric} is of the images that choose the settings; report a metric "
            "of the test images."
        )
    cells = [setting.cell for arm in found for setting in arm.settings]
    selecting = validation_metric(metric)
    if unlogged := sum(any(map(selecting.is_unlogged, cell.finished)) for cell in cells):
        what = f"{unlogged} of {plural(len(cells), 'cell')}"
        yield f"NO {selecting.noun.upper()}, NO TUNING: {what} have runs without it; choose by another metric."
    elif lacking := sum(not _has_validation(cell, metric) for cell in cells):
        what = f"{lacking} of {plural(len(cells), 'cell')}"
        yield f"NO VALIDATION IMAGES, NO TUNING: {what} have none; train with dataset.validation > 0."
    counts = {len(arm.settings) for arm in found}
    if len(counts) > 1:
        by_count = (_of_count(found, axes, count) for count in sorted(counts))
        yield f"UNEQUAL TUNING: {'; '.join(by_count)}. More settings favor an arm."
    unequal = [_name(arm, axes) for arm in found if len({_seeds(setting) for setting in arm.settings}) > 1]
    if unequal:
        what = f"{plural(len(unequal), 'arm')} ({shortened(unequal, MOST_NAMED)})"
        yield f"UNEQUAL SEEDS BETWEEN SETTINGS of {what}, or runs that have not ended."
    if left := sum(not _has_ended(run) for cell in cells for run in cell.runs):
        runs = sum(len(cell.runs) for cell in cells)
        yield f"NOT ENDED: {left} of {plural(runs, 'run')}; the choice of settings is provisional until all have ended."


def can_choose(cells: Sequence[Cell], metric: str) -> bool:
    """Return whether every cell has validation images, as far as its runs finished."""
    return all(_has_validation(cell, metric) for cell in cells)


def varying(cells: Sequence[Cell], keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that have two or more values among the cells."""
    return tuple(key for key in keys if len({canonical(cell.value(key)) for cell in cells if cell.has(key)}) > 1)


def _has_validation(cell: Cell, metric: str) -> bool:
    """Return whether every finished run of the cell has an entry for the validation metric, finite or not."""
    logged_as = validation_metric(metric).logged_as
    return all(logged_as in run.result.metrics for run in cell.finished if run.result is not None)


def _of_count(found: Sequence[Arm], axes: Sequence[str], count: int) -> str:
    names = [_name(arm, axes) for arm in found if len(arm.settings) == count]
    return f"{plural(count, 'setting')} of {shortened(names, MOST_NAMED)}"


def _seeds(setting: Setting) -> tuple[int, ...]:
    """Return the seeds whose runs have ended, with a metric or without."""
    return tuple(sorted(run.record.seed for run in setting.cell.runs if _has_ended(run)))


def _has_ended(run: Run) -> bool:
    return run.finished or run.state in _LOST or run.screened_out is not None


def _name(arm: Arm, axes: Sequence[str]) -> str:
    return cell_name(arm.chosen.cell, axes)


def notes(found: Sequence[Arm], axes: Sequence[str], keys: Sequence[str], metric: str) -> Iterator[str]:
    """Yield how the settings were chosen, from how many, and which ones."""
    if not found:
        return
    counts = sorted({len(arm.settings) for arm in found})
    tried = plural(counts[0], "setting") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} settings"
    yield (
        f"Tuned: {' and '.join(keys)}, chosen for each row among {tried}{_values(found, keys)} by the mean over seeds "
        f"of {validation_metric(metric).noun} after the last epoch. Test images play no part in the choice."
    )
    chosen: dict[str, list[str]] = {}
    for arm in found:
        chosen.setdefault(spelled(dict(zip(keys, arm.chosen.values, strict=True))), []).append(_name(arm, axes))
    listed = "; ".join(f"{setting} for {', '.join(names)}" for setting, names in chosen.items())
    is_provisional = not all(_has_ended(run) for arm in found for setting in arm.settings for run in setting.cell.runs)
    yield f"Chosen{', provisionally' * is_provisional}: {listed}."
    if tied := [_name(arm, axes) for arm in found if arm.tied > 1 and arm.chosen.val and not arm.chosen.lost]:
        named = shortened(tied, MOST_NAMED)
        yield f"Equal {validation_metric(metric).noun}: of {named}, the first in the order of the plan is chosen."


def warnings(found: Sequence[Arm], axes: Sequence[str]) -> Iterator[str]:
    """Yield what limits the choice."""
    settings = [setting for arm in found for setting in arm.settings]
    if lost := sum(setting.lost > 0 for setting in settings):
        yield (
            f"{lost} of {len(settings)} settings count as worst, since a run of theirs diverged, failed, was stopped "
            "early or has no finite validation metric."
        )
    if nothing := [_name(arm, axes) for arm in found if arm.chosen.lost]:
        named = shortened(nothing, MOST_NAMED)
        yield f"NO SETTING without such a run: of {named}, the first in the order of the plan is shown."
    if edges := [f"{_name(arm, axes)} ({', '.join(arm.edges)})" for arm in found if arm.edges]:
        named = shortened(edges, MOST_NAMED)
        yield f"AT THE EDGE of the values that were tried: {named}. A better setting may lie beyond."


def _values(found: Sequence[Arm], keys: Sequence[str]) -> str:
    """Return the settings that were tried, if they are the same for all arms."""
    tried = {tuple(setting.values for setting in arm.settings) for arm in found}
    if len(tried) > 1:
        return ", not the same for all rows,"
    (settings,) = tried
    return f" ({', '.join(' '.join(values) for values in settings)})"


def check_baseline(keys: Collection[str], baseline: Collection[str]) -> None:
    """Raise UserError for a baseline with a key that is tuned."""
    tuned = set(map(group_of, keys))
    for key in baseline:
        if group_of(key) in tuned:
            raise UserError(
                f"--baseline {key}=...: {key} is tuned, so its value is chosen for the baseline, too; drop it, or add "
                "--tune none to compare all values"
            )
