"""Forest plot: the paired difference of each cell from its baseline, with intervals and the difference of each seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headsweep.report.html import captions, scales
from headsweep.report.html.captions import MOST_ROWS, joined
from headsweep.report.html.drawing import INK, PAPER, Figure, Mark, listed
from headsweep.report.html.labels import cell_label, difference_texts, metric_label, metric_noun
from headsweep.report.html.selection import Selection
from headsweep.report.html.styles import GREY, Style
from headsweep.report.stats.inference import LEVEL, Difference
from headsweep.report.table.columns import human
from headsweep.report.table.metrics import METRICS, Unit
from headsweep.report.table.model import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BELOW = 0.3  # of a row: from its mean to its seeds
_BOTH = "95 % interval over seeds and test images"
_WIDE: dict[str, Any] = {"linewidth": 0.9, "marker": "|", "markersize": 8}


def differences(table: Table, selection: Selection) -> Figure | None:
    """Draw the difference of each cell from its baseline; None if no cell has a baseline."""
    known = [row for row in table.rows if row.difference]
    rows = selection.ranking.best(known, MOST_ROWS)
    found = [(row, row.difference) for row in rows if row.difference]
    if not found:
        return None
    labels = [cell_label(table, row) for row, _ in found]
    is_wide = any(_wide(row) for row, _ in found)
    unit = METRICS[table.metric].unit

    def draw(axes: Axes) -> None:
        if margin := table.margin:
            look: dict[str, Any] = {"color": GREY, "alpha": 0.18, "linewidth": 0}
            label = f"margin, ±{margin.points:g} {unit.short}"
            axes.axvspan(-margin.points, margin.points, label=label, **look)
        axes.axvline(0, color=INK, linewidth=1)
        for at, (row, difference) in enumerate(found):
            _draw_row(axes, at, row, difference, selection.style(row))
        if any(difference.n > 1 for _, difference in found):
            axes.plot([], [], "D-", color=INK, linewidth=2.6, label="mean, 95 % interval over seeds")
            axes.plot([], [], ".", color=INK, markersize=5, label="each seed")
        if is_wide:
            axes.plot([], [], color=INK, label=_BOTH, **_WIDE)
        scales.rows(axes, labels)
        scales.of_differences(axes, unit)
        axes.set_xlabel(f"Δ {metric_label(table.metric)} ({unit.difference})")

    caption = joined(
        f"Differences from the baseline ({table.baseline}), paired by seed (n = "
        f"{captions.span([difference.n for _, difference in found])}); the line at 0 is the baseline.",
        _intervals([difference for _, difference in found]),
        "Thin bars: 95 % confidence intervals that also cover the draw of the test images." if is_wide else "",
        captions.best_rows(selection, len(known)),
    )
    means = [
        Mark(unit.size * difference.mean, at, f"{labels[at]}: {text}")
        for at, ((_, difference), text) in enumerate(zip(found, difference_texts(rows), strict=True))
    ]
    seeds = [
        Mark(unit.size * value, at + _BELOW, f"{labels[at]}, seed {seed}: {_spelled(value, unit)}")
        for at, (_, difference) in enumerate(found)
        for seed, value in _seeds(difference).items()
    ]
    title = f"Difference in {metric_noun(table)} from the baseline"
    height = scales.rows_height(labels) + 0.06 * len(labels)
    return Figure("paired-differences", title, caption, listed(means), draw, height, (*means, *seeds))


def is_significant(row: Row) -> bool:
    """Return whether the row is significantly better or worse than its baseline, after correction."""
    return row.p is not None and row.p < LEVEL


def _spelled(difference: float, unit: Unit) -> str:
    return human(f"{unit.size * difference:+.{unit.decimals}f} {unit.short}")


def _draw_row(axes: Axes, at: int, row: Row, difference: Difference, style: Style) -> None:
    if ends := _wide(row):
        axes.plot(ends, [at, at], color=style.color, **_WIDE)
    size = METRICS[row.metric].unit.size
    half = None if difference.half_width is None else [size * difference.half_width]
    face = style.color if is_significant(row) else PAPER
    look: dict[str, Any] = {"color": style.color, "mfc": face, "elinewidth": 2.6}
    axes.errorbar([size * difference.mean], [at], xerr=half, fmt=style.marker, **look)
    dots = [size * value for value in _seeds(difference).values()]
    axes.plot(dots, [at + _BELOW] * len(dots), ".", color=style.color, markersize=5)


def _wide(row: Row) -> list[float] | None:
    """Return the ends of the interval over seeds and test images, in points; None where the row has none."""
    found = row.difference_over_images
    if found is None or found.half_width is None:
        return None
    return [100 * (found.mean - found.half_width), 100 * (found.mean + found.half_width)]


def _seeds(difference: Difference) -> dict[int, float]:
    """Return seed -> difference; nothing for one seed, which is the mean."""
    return dict(difference.by_seed) if difference.n > 1 else {}


def _intervals(found: Sequence[Difference]) -> str:
    without = sum(difference.half_width is None for difference in found)
    if without == len(found):
        return f"No confidence intervals ({captions.no_interval(found)}): no difference is significant."
    some = f" {without} of {len(found)} have none: {captions.no_interval(found)}." if without else ""
    return (
        f"Bars: 95 % confidence intervals of the mean difference over seeds, uncorrected.{some} Filled markers: "
        f"p < {LEVEL:g} in a paired t-test, Holm-corrected over all planned differences; hollow: not significant."
    )
