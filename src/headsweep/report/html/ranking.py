"""Rank cells where not all can be drawn: by validation accuracy, so that test accuracy selects none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from headsweep.report.html.labels import metric_label
from headsweep.report.read.cells import Cell
from headsweep.report.table.metrics import METRICS, validation_metric
from headsweep.report.table.model import Row, Table


@dataclass(frozen=True)
class Ranking:
    """A score for each row that has one; higher is better."""

    scores: Mapping[tuple[str, ...], float]  # by the fingerprints of a row
    by: str  # what the score is, e.g. "by validation top-1"

    def score(self, row: Row) -> float:
        """Return the row's score; -inf where it has none."""
        return self.scores.get(row.fingerprints, -math.inf)

    def best(self, rows: Iterable[Row], count: int) -> tuple[Row, ...]:
        """Return the `count` best rows, in their order."""
        rows = tuple(rows)
        kept = set(sorted(range(len(rows)), key=lambda at: self.score(rows[at]), reverse=True)[:count])
        return tuple(row for at, row in enumerate(rows) if at in kept)


def rank(table: Table) -> Ranking:
    """Rank by validation accuracy; by the compared metric where a row that has it has no validation accuracy."""
    score = METRICS[table.metric].score
    compared = {row.fingerprints: score(row.compared.mean) for row in table.rows if row.compared}
    if table.metric.startswith("val_"):
        return Ranking(compared, f"by {metric_label(table.metric)}")
    metric = validation_metric(table.metric).name
    cells = cells_by_run(table)
    by_seed = {names: METRICS[metric].by_seed(cells[names[0]]) for names in compared}
    if all(by_seed.values()):
        means = {names: score(fmean(values.values())) for names, values in by_seed.items()}
        return Ranking(means, f"by {metric_label(metric)}")
    bias = "an optimistically biased selection, since not every cell has validation images"
    return Ranking(compared, f"by {metric_label(table.metric)} itself ({bias})")


def cells_by_run(table: Table) -> dict[str, Cell]:
    """Return the cell of each run, by the run's fingerprint."""
    return {run.record.fingerprint: cell for cell in table.cells for run in cell.runs}
