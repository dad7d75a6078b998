"""A quantity of each cell against the number of heads, or one cell a row if all have the same number of heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsweep.report.html import captions, scales
from headsweep.report.html.captions import MOST_ROWS, joined
from headsweep.report.html.drawing import PAPER, Figure, Mark, draw_points, listed
from headsweep.report.html.labels import cell_label, series_label
from headsweep.report.html.quantities import Quantity
from headsweep.report.html.selection import Selection
from headsweep.report.table.model import Table
from headsweep.text import capitalized, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def by_heads(table: Table, selection: Selection, quantity: Quantity) -> Figure | None:
    """Draw the quantity; None if no cell has it."""
    if not any(quantity.read(row) for row in selection.rows):
        return None
    if len({row.heads for row in (*selection.rows, *selection.others)}) > 1:
        return _against_heads(selection, quantity)
    return _one_cell_a_row(table, selection, quantity)


def _against_heads(selection: Selection, quantity: Quantity) -> Figure:
    step = scales.offset(selection.counts, len(selection.series))
    drawn = []
    for at, one in enumerate(selection.series):
        shift = 2 ** (step * (at - (len(selection.series) - 1) / 2))
        drawn.append([(row, shift * row.heads, value) for row in one.rows if (value := quantity.read(row))])

    def draw(axes: Axes) -> None:
        for one, points in zip(selection.series, drawn, strict=True):
            places, values = [place for _, place, _ in points], [value for _, _, value in points]
            draw_points(axes, places, values, one.style, one.label, one.style.dash)
        scales.heads(axes, selection.counts)
        axes.set_ylabel(quantity.axis)
        quantity.set_limits(axes, "y")

    marks = [
        Mark(place, value[0], f"{one.label}, {plural(row.heads, 'head')}: {quantity.spell(row)}")
        for one, points in zip(selection.series, drawn, strict=True)
        for row, place, value in points
    ]
    title = f"{capitalized(quantity.noun)} against heads"
    caption = joined(quantity.caption(selection.rows), selection.sentence)
    return Figure(f"{quantity.name}-against-heads", title, caption, listed(marks), draw, marks=marks)


def _one_cell_a_row(table: Table, selection: Selection, quantity: Quantity) -> Figure:
    known = [row for row in table.rows if row.compared]
    rows = [(row, value) for row in selection.ranking.best(known, MOST_ROWS) if (value := quantity.read(row))]
    labels = [series_label(table, row) for row, _ in rows]

    def draw(axes: Axes) -> None:
        for at, (row, (mean, half)) in enumerate(rows):
            style = selection.style(row)
            bar = [half] if half else None
            axes.errorbar([mean], [at], xerr=bar, fmt=style.marker, color=style.color, mfc=PAPER, capsize=3)
        scales.rows(axes, labels)
        axes.set_xlabel(quantity.axis)
        quantity.set_limits(axes, "x")

    marks = [
        Mark(value[0], at, f"{cell_label(table, row)}: {quantity.spell(row)}") for at, (row, value) in enumerate(rows)
    ]
    title = f"{capitalized(quantity.noun)} with {plural(selection.counts[0], 'head')}"
    caption = joined(quantity.caption([row for row, _ in rows]), captions.best_rows(selection, len(known)))
    return Figure(quantity.name, title, caption, listed(marks), draw, scales.rows_height(labels), marks)
