"""Accuracy against parameters or FLOPs, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headsweep.report.html import scales
from headsweep.report.html.captions import joined
from headsweep.report.html.drawing import INK, Figure, Mark, draw_points
from headsweep.report.html.labels import cell_label, metric_axis, quality_noun
from headsweep.report.html.quantities import accuracy_text
from headsweep.report.html.ranking import cells_by_run
from headsweep.report.html.selection import Selection
from headsweep.report.html.styles import GREY
from headsweep.report.stats.inference import LEVEL
from headsweep.report.stats.pareto import front, supported
from headsweep.report.table.columns import unit_of
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Row, Table
from headsweep.text import capitalized

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 500  # cells beside the series and the front
MOST_NUMBERS = 24  # cells of a figure with numbers of heads
COSTS = {"parameters": "parameters", "flops": "FLOPs of one image's forward pass"}


def tradeoff(table: Table, selection: Selection, cost: str) -> Figure | None:
    """Draw accuracy against `cost`, one of `COSTS`; None if no two cells with a number differ in that cost."""
    rows = [row for row in (*selection.rows, *selection.others) if cost in row.costs]
    costs = [row.costs[cost] for row in rows]
    if len(set(costs)) < 2:
        return None
    size, unit = unit_of(max(costs))
    metric = METRICS[table.metric]
    points = [(row.costs[cost] / size, _shown(row)) for row in rows]
    on_front = front([(at, metric.score(value)) for at, value in points])
    significant = supported(on_front, costs, _by_seed(table, rows), len(table.by_cell) + table.lost)
    others = selection.ranking.best((row for row in selection.others if cost in row.costs), MOST_POINTS)
    has_room = len(rows) <= MOST_NUMBERS

    def draw(axes: Axes) -> None:
        if others:
            dots = [[row.costs[cost] / size for row in others], [_shown(row) for row in others]]
            axes.plot(*dots, ".", color=GREY, markersize=4, label="other cells")
        for one in selection.series:
            shown = [row for row in one.rows if cost in row.costs]
            values = [(_shown(row), None) for row in shown]
            draw_points(axes, [row.costs[cost] / size for row in shown], values, one.style, one.label, one.style.dash)
        if has_room and len(selection.counts) > 1:
            _annotate_heads(axes, rows, points)
        _draw_front(axes, [points[at] for at in on_front], [points[at] for at in significant])
        scales.of_metric(metric.unit)(axes, "y")
        if is_wide(costs):
            scales.from_zero(axes, "x")
        axes.set_xlabel(COSTS[cost] + (f" ({unit})" if unit else ""))
        axes.set_ylabel(metric_axis(table))

    left_out = len(selection.others) - len(others)
    caption = joined(
        _front_caption(rows, len(on_front), len(significant), table),
        "Confidence intervals are in the table.",
        "Lines join the numbers of heads." if len(selection.counts) > 1 else "",
        "" if is_wide(costs) else f"The cost axis does not start at 0: {_range_of_costs(costs)}.",
        f"{left_out} of {len(rows)} cells are not shown; the front is that of all cells." if left_out > 0 else "",
    )
    alt = "On the front, by rising cost: " + "; ".join(
        f"{cell_label(table, row)}, {row.costs[cost] / size:.3g} {unit}, {metric.text(row.compared.mean)}"
        for row in (rows[at] for at in on_front)
        if row.compared
    )
    title = f"{capitalized(quality_noun(table))} against {'FLOPs' if cost == 'flops' else cost}"
    marks = [_mark(table, row, point, unit) for row, point in zip(rows, points, strict=True) if row in selection.rows]
    return Figure(f"accuracy-against-{cost}", title, caption, f"{alt}.", draw, marks=marks)


def _mark(table: Table, row: Row, point: tuple[float, float], unit: str) -> Mark:
    return Mark(*point, f"{cell_label(table, row)}: {point[0]:.4g} {unit}, {accuracy_text(table, row)}")


def is_wide(costs: Sequence[float]) -> bool:
    """Return whether the costs differ enough for an axis that starts at 0."""
    return max(costs) >= 2 * min(costs)


def _draw_front(
    axes: Axes, on_front: Sequence[tuple[float, float]], significant: Sequence[tuple[float, float]]
) -> None:
    """Draw a line through the front of the means, and rings around its significant cells."""
    label = "Pareto front"
    axes.step(*zip(*on_front, strict=True), where="post", color=INK, linewidth=1, linestyle=":", zorder=1, label=label)
    if significant:
        ring: dict[str, Any] = {"color": INK, "markersize": 13, "mfc": "none", "mew": 1, "linestyle": "none"}
        axes.plot(*zip(*significant, strict=True), marker="o", label="significant", **ring)


def _annotate_heads(axes: Axes, rows: Sequence[Row], points: Sequence[tuple[float, float]]) -> None:
    for row, point in zip(rows, points, strict=True):
        axes.annotate(str(row.heads), point, (5, 4), textcoords="offset points", fontsize=8, color=INK)


def _front_caption(rows: Sequence[Row], cells: int, significant: int, table: Table) -> str:
    noun = quality_noun(table)
    if cells == 1:
        return f"The Pareto front is a single cell: the cheapest also has the best mean {noun}."
    means = f"The Pareto front joins the cells that no other cell beats in both cost and mean {noun}"
    if all(row.compared.n == 1 for row in rows if row.compared):
        return f"{means}; with one seed each it may be noise."
    if table.no_claims:
        return f"{means}; its cells are not tested ({table.no_claims})."
    test = f"paired t-tests, p < {LEVEL:g}, Holm-corrected"
    word = "more accurate" if noun == "accuracy" else "better"
    better = f"significantly {word} than every cell that costs no more ({test})"
    return f"{means}. {f'Ringed: {better}.' if significant else f'No cell on it is {better}; it may be noise.'}"


def _range_of_costs(costs: Sequence[float]) -> str:
    return f"the most expensive cell costs {100 * (max(costs) / min(costs) - 1):.2g} % more than the cheapest"


def _by_seed(table: Table, rows: Sequence[Row]) -> list[Mapping[int, float]]:
    """Return seed -> score for each row; nothing where runs are missing, whose p would be those of the survivors.

    Nor where the table supports no claim.
    """
    cells, metric, expected = cells_by_run(table), METRICS[table.metric], table.expected
    is_whole = [len(row.seeds) == row.planned and expected <= set(row.seeds) for row in rows]
    return [
        metric.scores(metric.by_seed(cells[row.fingerprints[0]])) if whole and not table.no_claims else {}
        for row, whole in zip(rows, is_whole, strict=True)
    ]


def _shown(row: Row) -> float:
    assert row.compared is not None, "only rows with a number are selected"
    return METRICS[row.metric].unit.size * row.compared.mean
