"""The accuracies that a table can show, by name: on which images, with which weights, over which epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from headsweep.report.read.cells import Cell, Run
from headsweep.tracking.metric_names import VAL_TOP1

LAST_EPOCHS = 3  # as in the SeqAttention paper


class Reduction(Enum):
    """How a run's values by epoch become one number."""

    last = "last"
    mean_of_last = f"mean of the last {LAST_EPOCHS} epochs"
    best = "best epoch"


@dataclass(frozen=True)
class Metric:
    """One number of a run, an accuracy in [0, 1]."""

    name: str
    title: str
    logged_as: str  # in the metrics log
    reduction: Reduction = Reduction.last
    note: str = ""  # printed below the table

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
            value = _reduce(run.history(self.logged_as), run.result.epochs, self.reduction)
        return value if value is not None and math.isfinite(value) else None

    def by_seed(self, cell: Cell) -> dict[int, float]:
        """Return seed -> number, over the finished runs that have it."""
        values = {run.record.seed: self.of(run) for run in cell.finished}
        return {seed: value for seed, value in values.items() if value is not None}


def _reduce(history: Mapping[int, float], epochs: int, reduction: Reduction) -> float | None:
    if reduction is Reduction.best:
        return max(history.values()) if len(history) > 1 else None
    last = [history[epoch] for epoch in range(epochs - LAST_EPOCHS + 1, epochs + 1) if epoch in history]
    return sum(last) / LAST_EPOCHS if len(last) == LAST_EPOCHS else None


_TEST_BY_EPOCH = "requires test evaluation after every epoch (dataset.validation=0)"
_BIASED = "optimistically biased, since the best epoch is selected on the same images"
_AS_IN_PAPER = f"mean of the last {LAST_EPOCHS} epochs, as in the SeqAttention paper"
_SELECTED = f"test images, weights of the epoch with the best {VAL_TOP1}"


def _metrics() -> list[Metric]:
    found = []
    for top, title in (("top1", "top-1 %"), ("top5", "top-5 %")):
        test, val, mean, best = f"test/{top}", f"val/{top}", Reduction.mean_of_last, Reduction.best
        found += [
            Metric(top, title, test),
            Metric(f"{top}_last3", f"{title} last 3", test, mean, f"{_AS_IN_PAPER}; {_TEST_BY_EPOCH}"),
            Metric(f"{top}_best", f"{title} best", test, best, f"{_BIASED}; {_TEST_BY_EPOCH}"),
            Metric(f"{top}_selected", f"{title} selected", f"best/{top}", note=_SELECTED),
            Metric(f"val_{top}", f"val {title}", val),
            Metric(f"val_{top}_last3", f"val {title} last 3", val, mean),
            Metric(f"val_{top}_best", f"val {title} best", val, best, _BIASED),
        ]
    return found


METRICS: dict[str, Metric] = {metric.name: metric for metric in _metrics()}


def validation_metric(name: str) -> Metric:
    """Return the metric by which settings are chosen where `name` is reported: after the last epoch, never the best."""
    return METRICS[f"val_{name.removeprefix('val_').partition('_')[0]}"]
