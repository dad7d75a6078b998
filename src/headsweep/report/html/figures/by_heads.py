"""A number of each cell: against the number of heads, or side by side where that number is one and the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from headsweep.report.html import scales
from headsweep.report.html.drawing import PAPER, Figure
from headsweep.report.html.selection import (
    Selection,
    Series,
    capitalized,
    cell_label,
    compared,
    count_label,
    metric_axis,
    metric_noun,
    series_label,
)
from headsweep.report.stats.inference import Estimate
from headsweep.report.table.build import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 24  # cells that stand side by side
Value = tuple[float, float | None]  # a number and the half-width of its interval


@dataclass(frozen=True)
class Quantity:
    """A number that rows have."""

    name: str  # of the figure's files
    noun: str  # in the figure's title
    axis: str  # with the unit
    unit: str  # as it is read aloud
    read: Callable[[Row], Value | None]
    fit: Callable[[Axes, scales.Side], None]  # the limits of its axis
    note: Callable[[Sequence[Row]], str]  # what the numbers of some rows are
    decimals: int = 2


def accuracy(table: Table) -> Quantity:
    """What the table compares, in percent."""
    fit, note = scales.in_percent, partial(accuracy_note, table)
    return Quantity("accuracy", metric_noun(table), metric_axis(table), "%", accuracy_of, fit, note)


def accuracy_of(row: Row) -> Value | None:
    """What the table compares of a row, in percent; None where it has no number."""
    found = compared(row)
    return (100 * found.mean, None if found.half_width is None else 100 * found.half_width) if found else None


def interval_words(rows: Sequence[Row]) -> str:
    """What the bars are, and where there are none."""
    found = [estimate for row in rows if (estimate := compared(row))]
    without = sum(estimate.half_width is None for estimate in found)
    if without == len(found):
        return f"No intervals: {without_spread(found)}."
    some = f" {without} of {len(found)} have none: {without_spread(found)}." if without else ""
    bars = [(estimate, estimate.half_width) for estimate in found if estimate.half_width is not None]
    is_cut = any(it.mean - half < 0 or it.mean + half > 1 for it, half in bars)
    cut = " The axis ends at 0 and 100 %, and some bars go on beyond." if is_cut else ""
    return f"Bars are 95 % t-intervals of the mean over seeds (n = {range_words([it.n for it, _ in bars])}).{some}{cut}"


def accuracy_note(table: Table, rows: Sequence[Row]) -> str:
    """What the bars are, and what they are not for."""
    paired = any(row.difference and row.difference.half_width for row in table.rows)
    shared = "Bars include what a seed does to all heads alike: to compare two heads, see the paired differences."
    return joined(interval_words(rows), shared if paired else "")


def without_spread(found: Sequence[Estimate]) -> str:
    """Say why those that have no interval have none."""
    alone = {estimate.n == 1 for estimate in found if estimate.half_width is None}
    if alone == {True}:
        return "one seed each"
    return "the seeds all agree" if alone == {False} else "one seed, or seeds that all agree"


def range_words(numbers: Sequence[int]) -> str:
    """Say one number, or from which to which they are."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def compare_cells(table: Table, selection: Selection, quantity: Quantity) -> Figure | None:
    """Lines over the numbers of heads, or dots if there is only one number; None if no cell has the quantity."""
    if not any(quantity.read(row) for row in selection.rows):
        return None
    if len({row.heads for row in (*selection.rows, *selection.others)}) > 1:
        return _against_heads(selection, quantity)
    return _side_by_side(table, selection, quantity)


def draw_series(axes: Axes, one: Series, places: Sequence[float], values: Sequence[Value], dash: str) -> None:
    """Draw numbers of a series, with a bar where they have an interval; no marker hides one below it."""
    means, bars = [mean for mean, _ in values], [half or 0.0 for _, half in values]
    style: dict[str, Any] = {
        "color": one.style.color,
        "marker": one.style.marker,
        "linestyle": dash,
        "label": one.label,
    }
    style |= {"mfc": "none", "mew": 1.6, "capsize": 3, "elinewidth": 1.0}
    axes.errorbar(places, means, bars if any(bars) else None, **style)


def joined(*sentences: str) -> str:
    """The sentences that there are, as one text."""
    return " ".join(sentence for sentence in sentences if sentence)


def _against_heads(selection: Selection, quantity: Quantity) -> Figure:
    drawn = [
        (one, [(row.heads, value) for row in one.rows if (value := quantity.read(row))]) for one in selection.series
    ]

    def draw(axes: Axes) -> None:
        step = scales.beside(selection.counts, len(drawn))
        for at, (one, points) in enumerate(drawn):
            places = [heads * 2 ** (step * (at - (len(drawn) - 1) / 2)) for heads, _ in points]
            draw_series(axes, one, places, [value for _, value in points], one.style.dash)
        scales.heads(axes, selection.counts)
        axes.set_ylabel(quantity.axis)
        quantity.fit(axes, "y")

    alt = "; ".join(
        f"{one.label}: {', '.join(f'{count_label(heads)} {_said(value, quantity)}' for heads, value in points)}"
        for one, points in drawn
    )
    title = f"{capitalized(quantity.noun)} against heads"
    caption = joined(quantity.note(selection.rows), selection.words)
    return Figure(f"{quantity.name}-against-heads", title, caption, f"{alt}.", draw)


def _side_by_side(table: Table, selection: Selection, quantity: Quantity) -> Figure:
    known = [row for row in table.rows if compared(row)]
    rows = [(row, value) for row in selection.ranking.best(known, MOST_ROWS) if (value := quantity.read(row))]
    labels = [series_label(table, row) for row, _ in rows]

    def draw(axes: Axes) -> None:
        for at, (row, (mean, half)) in enumerate(rows):
            style = selection.style(row)
            bar = [half] if half else None
            axes.errorbar([mean], [at], xerr=bar, fmt=style.marker, color=style.color, mfc=PAPER, capsize=3)
        scales.rows(axes, labels)
        axes.set_xlabel(quantity.axis)
        quantity.fit(axes, "x")

    heads = count_label(selection.counts[0])
    alt = "; ".join(f"{cell_label(table, row)} {_said(value, quantity)}" for row, value in rows)
    title = f"{capitalized(quantity.noun)} with {heads}"
    caption = joined(quantity.note([row for row, _ in rows]), best_words(selection, len(known)))
    return Figure(quantity.name, title, caption, f"{alt}.", draw, scales.rows_height(labels))


def best_words(selection: Selection, known: int) -> str:
    """Say how MOST_ROWS of `known` cells were chosen; nothing if all are shown."""
    if known <= MOST_ROWS:
        return ""
    return f"Shown are the {MOST_ROWS} best of {known} cells {selection.ranking.words}; all are in the table."


def _said(value: Value, quantity: Quantity) -> str:
    mean, half = value
    within = f" ± {half:.{quantity.decimals}f}" if half else ""
    return f"{mean:.{quantity.decimals}f}{within} {quantity.unit}"
