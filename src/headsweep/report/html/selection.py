"""Which cells a figure draws, which of them are one line, and how each line looks in all figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headsweep.report.html.ranking import Ranking, rank, spoken
from headsweep.report.read.cells import MISSING
from headsweep.report.stats.inference import Estimate
from headsweep.report.table.build import Row, Table
from headsweep.report.table.metrics import MEASURES

MOST = 8  # lines that can still be told apart


@dataclass(frozen=True)
class Style:
    """Three cues that each tell a line apart, so that none needs to see colours."""

    color: str  # stands for a colour of the page's own, see `drawing.COLORS`
    marker: str
    dash: str


STYLES = tuple(
    Style(color, marker, dash)
    for color, marker, dash in zip(
        ("#0072b2", "#c44e00", "#007a5a", "#a8437f", "#8a6400", "#5b4fc0", "#2a7f9e", "#b3261e"),
        "os^DvPX*",
        ("-", "--", "-.", ":", "-", "--", "-.", ":"),
        strict=True,
    )
)


GREY = "#70767d"
OTHERS = Style(GREY, "o", "-")


@dataclass(frozen=True)
class Series:
    """The cells that differ in their number of heads alone, by that number."""

    label: str
    rows: tuple[Row, ...]
    style: Style


@dataclass(frozen=True)
class Selection:
    """The series that are drawn, and the words for those that are not."""

    series: tuple[Series, ...]
    others: tuple[Row, ...]  # rows with a number that belong to no series that is drawn
    words: str  # "" if nothing is left out
    ranking: Ranking  # of all rows

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those of all series that are drawn."""
        return tuple(row for one in self.series for row in one.rows)

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of heads that are drawn, ascending."""
        return tuple(sorted({row.heads for row in self.rows}))

    def style(self, row: Row) -> Style:
        """The style of the row's line in all figures; a grey dot where its line is not drawn."""
        return next((one.style for one in self.series if row in one.rows), OTHERS)


def compared(row: Row) -> Estimate | None:
    """The number that the table compares; None where the row has none."""
    return row.estimates.get(row.metric)


def metric_axis(table: Table) -> str:
    """What is compared, at an axis: with the images that it is of and the unit."""
    return f"{spoken(table.metric)} (%)"


def metric_noun(table: Table) -> str:
    """What is compared, in a sentence, e.g. "top-1"."""
    return MEASURES[table.metric].noun


def capitalized(words: str) -> str:
    """With a capital letter in front, and the others as they were."""
    return words[:1].upper() + words[1:]


def count_label(heads: int) -> str:
    """E.g. "1 head"."""
    return f"{heads} head{'s' if heads > 1 else ''}"


def series_label(table: Table, row: Row) -> str:
    """The head and what else tells the row apart, beside its number of heads."""
    options = [
        f"{axis.removesuffix('.name').rpartition('.')[2]} {value}"
        for axis, value in zip(table.axes, row.axes, strict=True)
        if value != MISSING
    ]
    return ", ".join([row.head, *options])


def cell_label(table: Table, row: Row) -> str:
    """What a row is called where it stands alone."""
    return f"{series_label(table, row)}, {count_label(row.heads)}"


def select(table: Table) -> Selection:
    """At most `MOST` series in the order of the table: those with the best cells, if there are more."""
    found: dict[str, list[Row]] = {}
    for row in table.rows:
        if compared(row):
            found.setdefault(series_label(table, row), []).append(row)
    ranking = rank(table)
    best = sorted(found, key=lambda label: max(map(ranking.score, found[label])), reverse=True)[:MOST]
    drawn = [label for label in found if label in best]
    series = tuple(Series(label, _by_heads(found[label]), style) for label, style in zip(drawn, STYLES, strict=False))
    words = f"Drawn are, of {len(found)} lines, the {MOST} with the best cells {ranking.words}; all are in the table."
    others = tuple(row for label, rows in found.items() if label not in best for row in rows)
    return Selection(series, others, words if others else "", ranking)


def _by_heads(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: row.heads))
