"""Select which cells figures draw, group them into lines, and give each line its style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headsweep.report.html.labels import series_label
from headsweep.report.html.ranking import Ranking, rank
from headsweep.report.html.styles import OTHERS, STYLES, Style
from headsweep.report.table.model import Row, Table

MOST = len(STYLES)  # lines in a figure


@dataclass(frozen=True)
class Series:
    """One line: the cells that differ in their number of heads alone, ordered by it."""

    label: str
    rows: tuple[Row, ...]
    style: Style


@dataclass(frozen=True)
class Selection:
    """The series that are drawn, and a sentence about those that are not."""

    series: tuple[Series, ...]
    others: tuple[Row, ...]  # rows with a number whose series is not drawn
    sentence: str  # "" if nothing is left out
    ranking: Ranking  # of all rows

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all series that are drawn."""
        return tuple(row for one in self.series for row in one.rows)

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of heads that are drawn, ascending."""
        return tuple(sorted({row.heads for row in self.rows}))

    def style(self, row: Row) -> Style:
        """Return the style of the row's line; a grey dot if that is not drawn."""
        return next((one.style for one in self.series if row in one.rows), OTHERS)


def select(table: Table) -> Selection:
    """Select at most `MOST` series, in the order of the table: those with the best cells, if there are more."""
    found: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.compared:
            found.setdefault(series_label(table, row), []).append(row)
    ranking = rank(table)
    best = sorted(found, key=lambda label: max(map(ranking.score, found[label])), reverse=True)[:MOST]
    drawn = [label for label in found if label in best]
    series = tuple(Series(label, _by_heads(found[label]), style) for label, style in zip(drawn, STYLES, strict=False))
    sentence = f"Shown are the {MOST} of {len(found)} lines with the best cells {ranking.by}; the table has all."
    others = tuple(row for label, rows in found.items() if label not in best for row in rows)
    return Selection(series, others, sentence if others else "", ranking)


def _by_heads(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: row.heads))
