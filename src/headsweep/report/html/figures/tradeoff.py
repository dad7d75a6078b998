"""Accuracy against what it costs, with the cells that nothing beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headsweep.report.html import scales
from headsweep.report.html.drawing import INK, Figure
from headsweep.report.html.figures.by_heads import accuracy_of, draw_series, interval_words, joined
from headsweep.report.html.ranking import cells_by_run
from headsweep.report.html.selection import GREY, Selection, cell_label, compared, metric_axis
from headsweep.report.stats.inference import LEVEL
from headsweep.report.stats.pareto import front, supported
from headsweep.report.table.build import Row, Table
from headsweep.report.table.columns import unit_of
from headsweep.report.table.metrics import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 500  # beside the series and the front
MOST_BARS = 24  # points whose intervals and numbers of heads can still be told apart
COSTS = {"parameters": "parameters", "flops": "FLOPs of one image's forward pass"}


def tradeoff(table: Table, selection: Selection, cost: str) -> Figure | None:
    """Draw accuracy against `cost`, one of `COSTS`; None if no two cells with a number differ in that cost."""
    rows = [row for row in (*selection.rows, *selection.others) if cost in row.costs]
    costs = [row.costs[cost] for row in rows]
    if len(set(costs)) < 2:
        return None
    size, unit = unit_of(max(costs))
    points = [(row.costs[cost] / size, _percent(row)) for row in rows]
    places = front(points)
    claimed = supported(places, costs, _by_seed(table, rows))
    others = selection.ranking.best((row for row in selection.others if cost in row.costs), MOST_POINTS)
    is_roomy = len(rows) <= MOST_BARS

    def draw(axes: Axes) -> None:
        if others:
            dots = [[row.costs[cost] / size for row in others], [_percent(row) for row in others]]
            axes.plot(*dots, ".", color=GREY, markersize=4, label="other cells")
        for one in selection.series:
            shown = [row for row in one.rows if cost in row.costs]
            values = [value if is_roomy else (value[0], None) for row in shown if (value := accuracy_of(row))]
            draw_series(axes, one, [row.costs[cost] / size for row in shown], values, "none")
        if is_roomy and len(selection.counts) > 1:
            _name_counts(axes, rows, points)
        _draw_front(axes, [points[at] for at in places], [points[at] for at in claimed])
        scales.in_percent(axes, "y")
        if is_wide(costs):
            scales.from_zero(axes, "x")
        axes.set_xlabel(COSTS[cost] + (f" ({unit})" if unit else ""))
        axes.set_ylabel(metric_axis(table))

    left_out = len(selection.others) - len(others)
    words = [
        _front_words(rows, len(places), len(claimed)),
        interval_words(rows) if is_roomy else "Intervals are in the table.",
        "Beside a marker: its number of heads." if is_roomy and len(selection.counts) > 1 else "",
        "" if is_wide(costs) else f"The axis of costs does not begin at 0: {_spread_words(costs)}.",
        f"{left_out} of {len(rows)} cells are not drawn; the front is that of all." if left_out > 0 else "",
    ]
    alt = "On the front, from cheap to dear: " + "; ".join(
        f"{cell_label(table, rows[at])}, {points[at][0]:.3g} {unit}, {points[at][1]:.2f} %" for at in places
    )
    title = f"Accuracy against {'FLOPs' if cost == 'flops' else cost}"
    return Figure(f"accuracy-against-{cost}", title, joined(*words), f"{alt}.", draw)


def is_wide(costs: Sequence[float]) -> bool:
    """Do the costs differ so much that an axis from 0 has room for them?"""
    return max(costs) >= 2 * min(costs)


def _draw_front(axes: Axes, best: Sequence[tuple[float, float]], claimed: Sequence[tuple[float, float]]) -> None:
    """Draw a line through the cells that are best by their means, and a ring about those that the seeds support."""
    label = "front of the means"
    axes.step(*zip(*best, strict=True), where="post", color=INK, linewidth=1, linestyle=":", zorder=1, label=label)
    if claimed:
        ring: dict[str, Any] = {"color": INK, "markersize": 13, "mfc": "none", "mew": 1, "linestyle": "none"}
        axes.plot(*zip(*claimed, strict=True), marker="o", label="supported by the seeds", **ring)


def _name_counts(axes: Axes, rows: Sequence[Row], points: Sequence[tuple[float, float]]) -> None:
    for row, point in zip(rows, points, strict=True):
        axes.annotate(str(row.heads), point, (4, 4), textcoords="offset points", fontsize=7, color=INK)


def _front_words(rows: Sequence[Row], cells: int, claimed: int) -> str:
    if cells == 1:
        return "By their means, the cheapest cell is the best, too: the front is that cell."
    means = "The front joins the cells than which none is both cheaper and better, by their means"
    if all(found.n == 1 for row in rows if (found := compared(row))):
        return f"{means}: it may be noise."
    test = f"more accurate than each cell that costs no more (paired t-tests, p < {LEVEL:g}, Holm-corrected)"
    return f"{means}. {f'Ringed: {test}.' if claimed else f'No cell of it is shown to be {test}: it may be noise.'}"


def _spread_words(costs: Sequence[float]) -> str:
    return f"the dearest cell costs {100 * (max(costs) / min(costs) - 1):.2g} % more than the cheapest"


def _by_seed(table: Table, rows: Sequence[Row]) -> list[Mapping[int, float]]:
    cells = cells_by_run(table)
    return [MEASURES[table.metric].by_seed(cells[row.fingerprints[0]]) for row in rows]


def _percent(row: Row) -> float:
    found = compared(row)
    assert found is not None, "only rows with a number are selected"
    return 100 * found.mean
