"""The metrics that a table can show, by name: on which images, with which weights, over which epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from headsweep.config.records.metric import METRICS as MEASURED
from headsweep.report.read.cells import Cell, Run
from headsweep.tracking.metric_names import MOST_SCORES, VAL_TOP1

LAST_EPOCHS = 3  # as in the SeqAttention paper


class Reduction(Enum):
    """How a run's values by epoch become one number."""

    last = "last"
    mean_of_last = f"mean of the last {LAST_EPOCHS} epochs"
    best = "best epoch"


@dataclass(frozen=True)
class Unit:
    """The unit in which a metric and its differences are shown."""

    size: float  # shown is the value times this
    suffix: str  # after a value in a sentence
    axis: str  # in the label of an axis
    difference: str  # of differences
    short: str  # the same, briefly
    decimals: int


PERCENT = Unit(100, " %", "%", "percentage points", "points", 2)


def _plain(unit: str) -> Unit:
    """Return a unit in which values are shown as they are."""
    return Unit(1, f" {unit}", unit, unit, unit, 4)


@dataclass(frozen=True)
class Metric:
    """One number of a run."""

    name: str
    title: str
    logged_as: str  # in the metrics log
    reduction: Reduction = Reduction.last
    note: str = ""  # printed below the table
    unit: Unit = PERCENT
    sign: int = 1  # -1: lower values are better
    is_share_of_images: bool = False  # each image counts as 0 or 1, so that the error of one run is binomial

    @property
    def noun(self) -> str:
        """The metric in a sentence, e.g. "top-1 last 3"."""
        return self.title.replace(" %", "")

    def of(self, run: Run) -> float | None:
        """Return the number; None where the run has none, has NaN, or was evaluated too rarely."""
        if not run.finished or run.result is None:
            return None
        if self.reduction is Reduction.last:
            value = run.result.metrics.get(self.logged_as)
        else:
            value = _reduce(run.history(self.logged_as), run.result.epochs, self)
        return value if value is not None and math.isfinite(value) else None

    def by_seed(self, cell: Cell) -> dict[int, float]:
        """Return seed -> number, over the finished runs that have it."""
        values = {run.record.seed: self.of(run) for run in cell.finished}
        return {seed: value for seed, value in values.items() if value is not None}

    def is_unlogged(self, run: Run) -> bool:
        """Return whether the run has evaluated these images without this metric."""
        loss = f"{self.logged_as.partition('/')[0]}/loss"
        return run.result is not None and loss in run.result.metrics and self.logged_as not in run.result.metrics

    @property
    def why_unlogged(self) -> str:
        """Why a run may lack the metric, in a clause."""
        earlier = "trained by a version that did not log it"
        spec = MEASURED[measure_of(self.name)]
        if spec.compute is None:
            return earlier
        return f"{earlier}, or on more than {MOST_SCORES / 1e6:g} million images x classes, or on images of one class"

    def score(self, value: float) -> float:
        """Return a number of which higher is better."""
        return self.sign * value

    def scores(self, values: Mapping[int, float]) -> dict[int, float]:
        """Return the same for seed -> value."""
        return {seed: self.sign * value for seed, value in values.items()}

    def text(self, value: float) -> str:
        """Return the value with its unit, e.g. "51.69 %"."""
        return f"{self.unit.size * value:.{self.unit.decimals}f}{self.unit.suffix}"


def _reduce(history: Mapping[int, float], epochs: int, metric: Metric) -> float | None:
    if metric.reduction is Reduction.best:
        finite = filter(math.isfinite, history.values())
        return max(finite, key=metric.score, default=None) if len(history) > 1 else None
    last = [history[epoch] for epoch in range(epochs - LAST_EPOCHS + 1, epochs + 1) if epoch in history]
    return sum(last) / LAST_EPOCHS if len(last) == LAST_EPOCHS else None


_TEST_BY_EPOCH = "requires test evaluation after every epoch (dataset.validation=0)"
_BIASED = "optimistically biased, since the best epoch is selected on the same images"
_AS_IN_PAPER = f"mean of the last {LAST_EPOCHS} epochs, as in the SeqAttention paper"
_WORDS = {"last3": "last 3", "best": "best", "selected": "selected"}
_SELECTED = f"test images, weights of the epoch with the best {VAL_TOP1}"


def _measures() -> list[Metric]:
    """Return what is measured in an evaluation, as on the test images after the last epoch."""
    return [
        Metric(
            name,
            it.title,
            f"test/{it.logged_as or name}",
            note=it.note,
            unit=PERCENT if it.unit == "%" else _plain(it.unit),
            sign=-1 if it.lower_is_better else 1,
            is_share_of_images=it.is_share_of_images,
        )
        for name, it in MEASURED.items()
    ]


def _metrics() -> Iterator[Metric]:
    mean, best = Reduction.mean_of_last, Reduction.best
    for it in _measures():
        name, title, logged_as = it.name, it.title, it.logged_as.removeprefix("test/")
        test, val = it.logged_as, f"val/{logged_as}"
        yield it
        for suffix, logged, reduction, note in (
            ("last3", test, mean, f"{_AS_IN_PAPER}; {_TEST_BY_EPOCH}"),
            ("best", test, best, f"{_BIASED}; {_TEST_BY_EPOCH}"),
            ("selected", f"best/{logged_as}", Reduction.last, _SELECTED),
        ):
            title_ = f"{title} {_WORDS[suffix]}"
            yield replace(it, name=f"{name}_{suffix}", title=title_, logged_as=logged, reduction=reduction, note=note)
        yield replace(it, name=f"val_{name}", title=f"val {title}", logged_as=val, note="")
        for suffix, reduction, note in (("last3", mean, ""), ("best", best, _BIASED)):
            title_ = f"val {title} {_WORDS[suffix]}"
            yield replace(it, name=f"val_{name}_{suffix}", title=title_, logged_as=val, reduction=reduction, note=note)


METRICS: dict[str, Metric] = {metric.name: metric for metric in _metrics()}


def validation_metric(name: str) -> Metric:
    """Return the metric by which settings are chosen where `name` is reported: after the last epoch, never the best."""
    return METRICS[f"val_{measure_of(name)}"]


def measure_of(name: str) -> str:
    """Return what a metric measures, e.g. "log_loss" for "val_log_loss_best"."""
    return next(it.name for it in _measures() if METRICS[name].logged_as.endswith(it.logged_as.removeprefix("test")))
