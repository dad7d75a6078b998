"""Which cells are best, where not all can be drawn: by validation images, so that luck on test images draws none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headsweep.report.read.cells import Cell
from headsweep.report.table.build import Row, Table
from headsweep.report.table.metrics import MEASURES


@dataclass(frozen=True)
class Ranking:
    """A score for each row that has one, and what it is."""

    scores: Mapping[tuple[str, ...], float]  # by the fingerprints of a row
    words: str  # e.g. "by validation top-1"

    def score(self, row: Row) -> float:
        """Return the row's score; -inf where it has none."""
        return self.scores.get(row.fingerprints, -math.inf)

    def best(self, rows: Iterable[Row], count: int) -> tuple[Row, ...]:
        """Return the `count` best rows, in their order."""
        rows = tuple(rows)
        kept = set(sorted(range(len(rows)), key=lambda at: self.score(rows[at]), reverse=True)[:count])
        return tuple(row for at, row in enumerate(rows) if at in kept)


def rank(table: Table) -> Ranking:
    """Rank by validation accuracy; by what is compared where a row with a number has none."""
    compared = {row.fingerprints: found.mean for row in table.rows if (found := row.estimates.get(table.metric))}
    if table.metric.startswith("val_"):
        return Ranking(compared, f"by {spoken(table.metric)}")
    measure = f"val_{table.metric.partition('_')[0]}"
    cells = cells_by_run(table)
    by_seed = {names: MEASURES[measure].by_seed(cells[names[0]]) for names in compared}
    if all(by_seed.values()):
        means = {names: math.fsum(values.values()) / len(values) for names, values in by_seed.items()}
        return Ranking(means, f"by {spoken(measure)}")
    how = "a choice that flatters them, as not every cell has validation images"
    return Ranking(compared, f"by {spoken(table.metric)} itself, {how}")


def cells_by_run(table: Table) -> dict[str, Cell]:
    """Return the cell of each run, by the run's fingerprint."""
    return {run.record.fingerprint: cell for cell in table.cells for run in cell.runs}


def spoken(measure: str) -> str:
    """Return a measure's name with the images that it is of, e.g. "test top-1"."""
    noun = MEASURES[measure].noun
    return noun.replace("val ", "validation ", 1) if noun.startswith("val ") else f"test {noun}"
