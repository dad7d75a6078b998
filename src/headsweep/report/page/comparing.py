"""A number of each cell: against the number of heads, or side by side where that number is one and the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headsweep.report.page.drawing import GREY, Figure
from headsweep.report.page.series import (
    Selection,
    Series,
    best_rows,
    capitalized,
    cell_label,
    compared,
    count_label,
    metric_noun,
    metric_title,
    series_label,
)
from headsweep.report.table import Row, Table

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
    decimals: int = 2


def accuracy(table: Table) -> Quantity:
    """What the table compares, in percent."""
    return Quantity("accuracy", metric_noun(table), metric_title(table), "%", accuracy_of)


def accuracy_of(row: Row) -> Value | None:
    """What the table compares of a row, in percent; None where it has no number."""
    found = compared(row)
    return (100 * found.mean, None if found.half_width is None else 100 * found.half_width) if found else None


def interval_words(rows: Sequence[Row]) -> str:
    """What the bars are, and where there are none."""
    found = [estimate for row in rows if (estimate := compared(row))]
    without = sum(estimate.half_width is None for estimate in found)
    seeds = sorted({estimate.n for estimate in found})
    if without == len(found):
        return "One seed each: no intervals." if seeds == [1] else "The seeds show no spread: no intervals."
    some = f" {without} of {len(found)} have none: one seed, or seeds without spread." if without else ""
    n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"Bars are 95 % t-intervals of the mean over seeds (n = {n}).{some}"


def compare_cells(table: Table, selection: Selection, quantity: Quantity, note: str) -> Figure | None:
    """Lines over the numbers of heads, or dots if there is only one number; None if no cell has the quantity."""
    if not any(quantity.read(row) for row in selection.rows):
        return None
    if len({row.heads for row in (*selection.rows, *selection.others)}) > 1:
        return _against_heads(table, selection, quantity, note)
    return _side_by_side(table, selection, quantity, note)


def draw_series(axes: Axes, one: Series, places: Sequence[float], values: Sequence[Value], dash: str) -> None:
    """Draw numbers of a series, with a bar where they have an interval."""
    means, bars = [mean for mean, _ in values], [half or 0.0 for _, half in values]
    style = {"color": one.style.color, "marker": one.style.marker, "linestyle": dash, "label": one.label}
    axes.errorbar(places, means, bars if any(bars) else None, capsize=3, elinewidth=1.1, **style)  # type: ignore[arg-type]


def row_axis(axes: Axes, labels: Sequence[str]) -> None:
    """Rows from top to bottom, named."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def rows_height(rows: int) -> float:
    """Inches of a figure with so many rows."""
    return 0.9 + 0.27 * max(rows, 3)


def joined(*sentences: str) -> str:
    """The sentences that there are, as one text."""
    return " ".join(sentence for sentence in sentences if sentence)


def _against_heads(table: Table, selection: Selection, quantity: Quantity, note: str) -> Figure:
    drawn = [
        (one, [(row.heads, value) for row in one.rows if (value := quantity.read(row))]) for one in selection.series
    ]

    def draw(axes: Axes) -> None:
        for at, (one, points) in enumerate(drawn):
            beside = 1.02 ** (at - (len(drawn) - 1) / 2)  # so that bars at one place do not hide each other
            places = [heads * beside for heads, _ in points]
            draw_series(axes, one, places, [value for _, value in points], one.style.dash)
        _heads_axis(axes, selection.counts)
        axes.set_ylabel(quantity.axis)

    alt = "; ".join(
        f"{one.label}: {', '.join(f'{count_label(heads)} {_said(value, quantity)}' for heads, value in points)}"
        for one, points in drawn
    )
    title = f"{capitalized(quantity.noun)} against heads"
    return Figure(f"{quantity.name}-against-heads", title, joined(note, selection.words), f"{alt}.", draw)


def _side_by_side(table: Table, selection: Selection, quantity: Quantity, note: str) -> Figure:
    named = best_rows((*selection.rows, *selection.others), MOST_ROWS)
    rows = [(row, value) for row in named if (value := quantity.read(row))]
    known = len(selection.rows) + len(selection.others)
    words = f"Shown are the {MOST_ROWS} best of {known} cells; all are in the table." if known > MOST_ROWS else ""
    colors = {row.fingerprints: one.style for one in selection.series for row in one.rows}

    def draw(axes: Axes) -> None:
        for at, (row, (mean, half)) in enumerate(rows):
            style = colors.get(row.fingerprints)
            color, marker = (style.color, style.marker) if style else (GREY, "o")
            axes.errorbar([mean], [at], xerr=[half] if half else None, fmt=marker, color=color, capsize=3)
        row_axis(axes, [series_label(table, row) for row, _ in rows])
        axes.set_xlabel(quantity.axis)

    heads = count_label(selection.counts[0])
    alt = "; ".join(f"{cell_label(table, row)} {_said(value, quantity)}" for row, value in rows)
    title = f"{capitalized(quantity.noun)} with {heads}"
    return Figure(quantity.name, title, joined(note, words), f"{alt}.", draw, rows_height(len(rows)))


def _said(value: Value, quantity: Quantity) -> str:
    mean, half = value
    within = f" ± {half:.{quantity.decimals}f}" if half else ""
    return f"{mean:.{quantity.decimals}f}{within} {quantity.unit}"


def _heads_axis(axes: Axes, counts: Sequence[int]) -> None:
    """Doublings are equally far apart, and only the numbers that were trained are marked."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_xticks([], minor=True)
    axes.set_xlim(counts[0] / 1.2, counts[-1] * 1.2)
    axes.set_xlabel("heads in parallel")
