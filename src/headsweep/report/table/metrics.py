"""The accuracies that a table can show, by name: of which images, of which weights, over which epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from headsweep.report.read.cells import Cell, Run

LAST_EPOCHS = 3  # whose mean the SeqAttention paper prints


class Reduction(Enum):
    """How a run's history becomes one number."""

    last = ""
    last3 = "mean of the last three epochs"
    best = "best epoch"


@dataclass(frozen=True)
class Measure:
    """One number of a run, a share in [0, 1]."""

    name: str
    title: str
    metric: str  # as it stands in the metrics log
    reduction: Reduction = Reduction.last
    note: str = ""  # what a reader must know to read it right

    @property
    def noun(self) -> str:
        """What it is in a sentence, e.g. "top-1 last 3"."""
        return self.title.replace(" %", "")

    def of(self, run: Run) -> float | None:
        """The number; None where the run has none, it is NaN, or the run was not evaluated often enough for it."""
        if not run.finished or run.result is None:
            return None
        if self.reduction is Reduction.last:
            value = run.result.metrics.get(self.metric)
        else:
            value = _reduce(run.history(self.metric), run.result.epochs, self.reduction)
        return value if value is not None and math.isfinite(value) else None

    def by_seed(self, cell: Cell) -> dict[int, float]:
        """Seed -> number, over the finished runs that have it."""
        values = {run.record.seed: self.of(run) for run in cell.finished}
        return {seed: value for seed, value in values.items() if value is not None}


def _reduce(history: Mapping[int, float], epochs: int, reduction: Reduction) -> float | None:
    if reduction is Reduction.best:
        return max(history.values()) if len(history) > 1 else None
    last = [history[epoch] for epoch in range(epochs - LAST_EPOCHS + 1, epochs + 1) if epoch in history]
    return sum(last) / LAST_EPOCHS if len(last) == LAST_EPOCHS else None


_TEST = "needs the test images evaluated after each epoch, as without held-out images (dataset.validation=0)"
_CHOSEN = "the best epoch was chosen on the images that it is reported for, and flatters"


def _measures() -> list[Measure]:
    found = []
    for top, title in (("top1", "top-1 %"), ("top5", "top-5 %")):
        found += [
            Measure(top, title, f"test/{top}"),
            Measure(f"{top}_last3", f"{title} last 3", f"test/{top}", Reduction.last3, f"the paper's; {_TEST}"),
            Measure(f"{top}_best", f"{title} best", f"test/{top}", Reduction.best, f"{_CHOSEN}; {_TEST}"),
            Measure(
                f"{top}_selected",
                f"{title} selected",
                f"best/{top}",
                note="test images, weights of the epoch with the best val/top1",
            ),
            Measure(f"val_{top}", f"val {title}", f"val/{top}"),
            Measure(f"val_{top}_last3", f"val {title} last 3", f"val/{top}", Reduction.last3),
            Measure(f"val_{top}_best", f"val {title} best", f"val/{top}", Reduction.best, _CHOSEN),
        ]
    return found


MEASURES: dict[str, Measure] = {measure.name: measure for measure in _measures()}
