"""Axes that are hyper-parameters: the best of several values may not be read against the best of fewer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from headsweep.config.keys import has_trait
from headsweep.config.omegaconf_errors import unknown_key
from headsweep.config.traits import DATA
from headsweep.config.values import canonical
from headsweep.errors import UserError
from headsweep.report.read.axes import group_of
from headsweep.report.read.cells import VARIANT, Cell
from headsweep.report.read.select import cell_name, spelled
from headsweep.report.stats.inference import estimate
from headsweep.report.table import tuning
from headsweep.report.table.metrics import METRICS, validation_metric
from headsweep.text import shortened

MOST_NAMED = 5  # baselines
_COMPARED = ("head", "heads", VARIANT, "model", "dataset")


def is_hyperparameter(key: str) -> bool:
    """Return whether a key is tuned: neither what a study compares nor the data that it compares on."""
    section = key.partition(".")[0]
    return group_of(key) not in _COMPARED and section != "model" and not has_trait(key, DATA)


def check_tuned(cells: Sequence[Cell], keys: Sequence[str]) -> None:
    """Raise UserError for a key to tune that is no hyper-parameter, or of which the cells do not have two values."""
    for key in keys:
        if not any(cell.has(key) for cell in cells):
            raise UserError(f"--tune {unknown_key(key)}")
        if key == "seed" or not is_hyperparameter(key):
            raise UserError(f"--tune {key}: expected a hyper-parameter, e.g. optimizer.lr; {key} is never tuned")
        if not tuning.varying(cells, (key,)):
            raise UserError(f"--tune {key}: all cells have the same value; expected two or more to choose from")


def compared_values(cell: Cell, axes: Sequence[str]) -> tuple[str, ...]:
    """Return what a study varies on purpose; cells that agree in it differ in how they were tuned."""
    keys = dict.fromkeys((*_COMPARED, *(axis for axis in axes if not is_hyperparameter(axis))))
    return tuple(canonical(cell.value(key)) for key in keys)


def unchosen(
    cells: Sequence[Cell], axes: Sequence[str], baseline: Mapping[str, str], are_arms: bool = False
) -> tuple[str, ...]:
    """Return the hyper-parameters that vary although no value of theirs was chosen.

    One that `baseline` names is what the table compares, if the baseline names nothing but hyper-parameters: all rows
    then have the head, and all else, of their baseline. Where each of the cells is an arm that was tuned
    (`are_arms`), the options of a head distinguish arms: each has the same number of settings, and is counted.
    """
    is_factor = bool(baseline) and all(map(is_hyperparameter, baseline))
    factors = set(map(group_of, baseline)) if is_factor else set()
    found = [axis for axis in axes if is_hyperparameter(axis) and group_of(axis) not in factors]
    found = [axis for axis in found if not (are_arms and axis.startswith("head."))]
    return tuple(axis for axis in found if len({canonical(cell.value(axis)) for cell in cells}) > 1)


def footnotes(
    found: Sequence[str], axes: Sequence[str], cells: Sequence[Cell], against: Sequence[Cell | None], metric: str
) -> Iterator[str]:
    """Yield what varies without a choice, and at which setting each baseline is best.

    Args:
        found: those hyper-parameters.
        axes: the keys beside head and heads that distinguish cells.
        cells: all of the table.
        against: their baselines.
        metric: the compared one.
    """
    if not found:
        return
    others = [axis for axis in axes if axis not in found]
    arms: dict[str, list[Cell]] = {}
    for base in {id(base): base for base in against if base}.values():
        arms.setdefault(cell_name(base, others), []).append(base)
    best = [sentence for name, settings in arms.items() if (sentence := _best(name, settings, found, metric))]
    listed = f" Best settings of the baseline: {shortened(best, MOST_NAMED, '; ')}." if best else ""
    advice = _advice(found, others, cells, metric)
    vary = f"{', '.join(found)} {'varies' if len(found) == 1 else 'vary'}"
    yield (
        f"NOT TUNED: {vary} and no value was chosen on validation images, so nothing is bold and no p is shown: the "
        f"best row of a head may not be compared with one row of another.{listed} {advice}"
    )


def _advice(found: Sequence[str], others: Sequence[str], cells: Sequence[Cell], metric: str) -> str:
    """Return what would support a claim."""
    if not tuning.can_choose(cells, metric):
        return "Runs with validation images (dataset.validation > 0) can be tuned."
    tune = " ".join(f"--tune {key}" for key in found)
    if len(set(Counter(compared_values(cell, others) for cell in cells).values())) > 1:
        return f"With as many settings for each row, `headsweep table {tune}` would choose one of them."
    return f"`headsweep table {tune}` chooses a setting for each row."


def _best(name: str, cells: Sequence[Cell], keys: Sequence[str], metric: str) -> str | None:
    """Return at which setting a baseline is best, by validation images where all its cells have them."""
    for measure in (validation_metric(metric), METRICS[metric]):
        means = [estimate([*values.values()]).mean if (values := measure.by_seed(cell)) else None for cell in cells]
        known = [(measure.score(mean), -at) for at, mean in enumerate(means) if mean is not None]
        if len(known) == len(cells):
            score, at = max(known)
            setting = spelled({key: cells[-at].value(key) for key in keys})
            return f"{name} at {setting} ({measure.noun} {measure.text(measure.score(score))})"
    return None
