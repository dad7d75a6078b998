"""The accuracies by epoch of the drawn cells and of their baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headsweep.report.html.ranking import cells_by_run
from headsweep.report.html.selection import Selection
from headsweep.report.read.cells import Cell
from headsweep.report.table.model import Row, Table
from headsweep.tracking.metric_names import TEST_TOP1, TOP1_BY_EPOCH

History = Mapping[int, float]  # epoch -> accuracy


@dataclass(frozen=True)
class Histories:
    """The histories of one metric, each read once: those of a run are parsed from its whole log."""

    metric: str  # as it is logged
    by_row: Mapping[tuple[str, ...], Mapping[int, History]]  # fingerprints of a row -> seed -> history
    baselines: Mapping[tuple[str, ...], Mapping[int, History]]  # the same of the cell that the row is compared with

    def of(self, row: Row) -> Mapping[int, History]:
        """Return seed -> history, over the row's finished runs."""
        return self.by_row[row.fingerprints]

    def of_baseline(self, row: Row) -> Mapping[int, History]:
        """Return seed -> history of the cell that the row is compared with; empty for a row without one."""
        return self.baselines.get(row.fingerprints, {})


def read_histories(table: Table, selection: Selection) -> Histories:
    """Read the metric that runs log after each epoch: on validation images if there are any, else on test images."""
    cells = cells_by_run(table)
    against = {cell.record.group: baseline for cell, baseline in zip(table.cells, table.baselines, strict=True)}
    chosen = {row.fingerprints: cells[row.fingerprints[0]] for row in selection.rows}
    compared = {
        names: baseline
        for names, cell in chosen.items()
        if (baseline := against[cell.record.group]) and baseline is not cell
    }
    metric = _metric(list(chosen.values()))
    read: dict[str, Mapping[int, History]] = {}
    for cell in (*chosen.values(), *compared.values()):
        group = cell.record.group
        read[group] = read.get(group) or {run.record.seed: run.history(metric) for run in cell.finished}
    by_row, baselines = (
        {names: read[cell.record.group] for names, cell in found.items()} for found in (chosen, compared)
    )
    return Histories(metric, by_row, baselines)


def _metric(cells: list[Cell]) -> str:
    known = [run.result.metrics for cell in cells for run in cell.finished if run.result]
    return next((metric for metric in TOP1_BY_EPOCH if any(metric in metrics for metrics in known)), TEST_TOP1)
