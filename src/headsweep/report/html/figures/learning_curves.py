"""Accuracy by epoch: mean and range over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headsweep.report.html import scales
from headsweep.report.html.captions import joined
from headsweep.report.html.curves import Curve, bands, curve, draw_curves, marks, rows_with, shown_counts
from headsweep.report.html.drawing import Figure
from headsweep.report.html.histories import Histories
from headsweep.report.html.labels import LOGGED
from headsweep.report.html.selection import Selection
from headsweep.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_EPOCHS = 4  # in the last quarter, for a figure of its own


def learning_curves(selection: Selection, histories: Histories) -> dict[int, list[Figure]]:
    """Return number of heads -> its figures.

    Where no cell has a baseline, to which differences could be drawn, the last quarter of the epochs has a figure of
    its own, since on the scale of all epochs the curves overlap.
    """
    counts, left_out = shown_counts(selection)
    found = {}
    for heads in counts:
        rows = rows_with(selection, heads)
        labels = [one.label for one, _ in rows]
        curves = [
            line
            for one, row in rows
            if (line := curve(one.label, one.style, list(histories.of(row.fingerprints).values()), _range))
        ]
        name, of = f"learning-curves-{heads}", plural(heads, "head")
        figures = [_figure(name, of, histories.metric, curves, labels, left_out)] if curves else []
        ends = [] if any(row.baseline for _, row in rows) else last_quarter(curves)
        if ends:
            of = f"{of}, last quarter of the epochs"
            figures.append(_figure(f"{name}-end", of, histories.metric, ends, labels, left_out))
        found[heads] = figures
    return found


def last_quarter(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves in the last quarter of the epochs; none where it has fewer than LEAST_EPOCHS."""
    last = max((one.epochs[-1] for one in curves), default=0)
    ends = [one.since(math.ceil(0.75 * last)) for one in curves]
    ends = [end for end in ends if end.epochs]
    return ends if any(len(end.epochs) >= LEAST_EPOCHS for end in ends) else []


def _range(seeds: Sequence[float]) -> tuple[float, float]:
    return min(seeds), max(seeds)


def _figure(name: str, of: str, metric: str, curves: Sequence[Curve], labels: Sequence[str], left_out: str) -> Figure:
    def draw(axes: Axes) -> None:
        draw_curves(axes, curves)
        scales.in_percent(axes, "y")
        axes.set_ylabel(f"{LOGGED[metric]} (%)")

    without = [label for label in labels if label not in {one.label for one in curves}]
    caption = joined(
        "" if all(one.seeds == 1 for one in curves) else "Lines: mean over the finished seeds.",
        bands(curves, "range over seeds"),
        f"No values at these epochs: {', '.join(without)}." if without else "",
        left_out,
    )
    alt = "; ".join(
        f"{one.label}: {one.mean[0]:.1f} % at epoch {one.epochs[0]}, {one.mean[-1]:.1f} % at epoch "
        f"{one.epochs[-1]} (seeds from {one.low[-1]:.1f} to {one.high[-1]:.1f} %)"
        for one in curves
    )
    return Figure(name, f"Learning curves, {of}", caption, f"{alt}.", draw, marks=marks(curves, _spelled))


def _spelled(mean: float, low: float, high: float) -> str:
    seeds = f" (seeds {low:.2f} to {high:.2f} %)" if low < high else ""
    return f"{mean:.2f} %{seeds}"
