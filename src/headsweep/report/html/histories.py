"""The accuracies by epoch of the drawn cells and of their baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headsweep.report.html.selection import Selection
from headsweep.report.read.cells import Run
from headsweep.report.table.model import Table
from headsweep.tracking.metric_names import TEST_TOP1, TOP1_BY_EPOCH

History = Mapping[int, float]  # epoch -> accuracy


@dataclass(frozen=True)
class Histories:
    """The histories of one metric, each read once: those of a run are parsed from its whole log."""

    metric: str  # as it is logged
    by_run: Mapping[str, tuple[int, History]]  # fingerprint -> seed and history

    def of(self, fingerprints: Sequence[str]) -> dict[int, History]:
        """Return seed -> history of some runs."""
        return dict(self.by_run[name] for name in fingerprints)


def read_histories(table: Table, selection: Selection) -> Histories:
    """Read the metric that runs log after each epoch: on validation images if there are any, else on test images."""
    runs = {run.record.fingerprint: run for cell in table.cells for run in cell.runs}
    chosen = [runs[name] for row in selection.rows for name in row.fingerprints]
    compared = [runs[name] for row in selection.rows for name in row.baseline]
    metric = _metric(chosen)
    read = {run.record.fingerprint: run for run in (*chosen, *compared)}
    return Histories(metric, {name: (run.record.seed, run.history(metric)) for name, run in read.items()})


def _metric(runs: Sequence[Run]) -> str:
    known = [run.result.metrics for run in runs if run.result]
    return next((metric for metric in TOP1_BY_EPOCH if any(metric in metrics for metrics in known)), TEST_TOP1)
