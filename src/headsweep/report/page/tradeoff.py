"""Accuracy against what it costs, with the cells that nothing beats in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headsweep.report.columns import unit_of
from headsweep.report.page.comparing import accuracy_of, draw_series, interval_words, joined
from headsweep.report.page.drawing import GREY, INK, Figure
from headsweep.report.page.pareto import front
from headsweep.report.page.series import Selection, best_rows, cell_label, compared, metric_title
from headsweep.report.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 500  # beside the series and the front
MOST_BARS = 24  # points whose intervals can still be told apart
COSTS = {"parameters": "parameters", "flops": "FLOPs of one image's forward pass"}


def tradeoff(table: Table, selection: Selection, cost: str) -> Figure | None:
    """Accuracy against `cost`, one of `COSTS`; None if no cell with a number has that cost."""
    rows = [row for row in (*selection.rows, *selection.others) if cost in row.costs]
    if not rows:
        return None
    size, unit = unit_of(max(row.costs[cost] for row in rows))
    best = [rows[at] for at in front([(row.costs[cost], _percent(row)) for row in rows])]
    series = [(one, [row for row in one.rows if cost in row.costs]) for one in selection.series]
    others = best_rows((row for row in selection.others if cost in row.costs), MOST_POINTS)
    has_bars = len(rows) <= MOST_BARS

    def draw(axes: Axes) -> None:
        if others:
            places = [[row.costs[cost] / size for row in others], [_percent(row) for row in others]]
            axes.plot(*places, ".", color=GREY, markersize=4, label="other cells")
        for one, points in series:
            values = [value if has_bars else (value[0], None) for row in points if (value := accuracy_of(row))]
            draw_series(axes, one, [row.costs[cost] / size for row in points], values, "none")
        steps = [[row.costs[cost] / size for row in best], [_percent(row) for row in best]]
        axes.step(*steps, where="post", color=INK, linewidth=1, zorder=1, label="Pareto front")
        axes.plot(*steps, "o", color=INK, markersize=12, markerfacecolor="none", markeredgewidth=1)
        axes.set_xlabel(COSTS[cost] + (f" ({unit})" if unit else ""))
        axes.set_ylabel(metric_title(table))

    shown = len(selection.rows) + len(others)
    words = [
        "The front joins the cells than which none is both cheaper and better, by their means: whether two of its "
        "cells differ, the table says.",
        interval_words(rows) if has_bars else "Intervals are in the table.",
        f"Drawn are {shown} of {len(rows)} cells; the front is that of all." if shown < len(rows) else "",
    ]
    alt = "On the front, from cheap to dear: " + "; ".join(
        f"{cell_label(table, row)}, {row.costs[cost] / size:.3g} {unit}, {_percent(row):.2f} %" for row in best
    )
    title = f"Accuracy against {'FLOPs' if cost == 'flops' else cost}"
    return Figure(f"accuracy-against-{cost}", title, joined(*words), f"{alt}.", draw)


def _percent(row: Row) -> float:
    found = compared(row)
    assert found is not None, "only rows with a number are selected"
    return 100 * found.mean
