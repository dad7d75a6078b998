"""Accuracy by epoch: mean and range over seeds.

The last quarter of the epochs has a figure of its own, since on the scale of all epochs the curves overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headsweep.report.html import scales
from headsweep.report.html.captions import joined
from headsweep.report.html.drawing import Figure
from headsweep.report.html.selection import Selection
from headsweep.report.html.styles import Style
from headsweep.report.read.cells import Run
from headsweep.report.table.model import Row, Table
from headsweep.text import plural
from headsweep.tracking.metric_names import TEST_TOP1, TOP1_BY_EPOCH, VAL_TOP1

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_EPOCHS = 60  # points of a curve
MOST_FIGURES = 6  # numbers of heads with a figure
LEAST_EPOCHS = 4  # in the last quarter, for a figure of its own
MOST_BANDS = 4  # lines in a figure with bands
_AXES = {VAL_TOP1: "validation top-1 (%)", TEST_TOP1: "test top-1 (%)"}


@dataclass(frozen=True)
class Curve:
    """A line and its band over the seeds, in percent."""

    label: str
    style: Style
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]  # of the worst seed
    high: tuple[float, ...]  # of the best seed
    seeds: int

    def since(self, epoch: int) -> Curve:
        """Return the part from `epoch` on."""
        at = sum(one < epoch for one in self.epochs)
        parts = {name: getattr(self, name)[at:] for name in ("epochs", "mean", "low", "high")}
        return replace(self, **parts)


def learning_curves(table: Table, selection: Selection) -> list[Figure]:
    """Return a figure for each of up to MOST_FIGURES numbers of heads, and one of its last quarter if that is long."""
    runs = {run.record.fingerprint: run for cell in table.cells for run in cell.runs}
    metric = _metric([runs[name] for row in selection.rows for name in row.fingerprints])
    shown = sampled(selection.counts, MOST_FIGURES)
    skipped = [str(heads) for heads in selection.counts if heads not in shown]
    left_out = joined(f"Not shown: {', '.join(skipped)} heads." if skipped else "", selection.sentence)
    figures = []
    for heads in shown:
        rows = [(one, row) for one in selection.series for row in one.rows if row.heads == heads]
        curves = [curve for one, row in rows if (curve := _curve(one.label, one.style, _histories(row, runs, metric)))]
        if curves:
            labels = [one.label for one, _ in rows]
            figures.append(_figure(f"learning-curves-{heads}", plural(heads, "head"), metric, curves, labels, left_out))
        if ends := last_quarter(curves):
            name, of = f"learning-curves-{heads}-end", f"{plural(heads, 'head')}, last quarter of the epochs"
            figures.append(_figure(name, of, metric, ends, labels, left_out))
    return figures


def last_quarter(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves in the last quarter of the epochs; none where it has fewer than LEAST_EPOCHS."""
    last = max((curve.epochs[-1] for curve in curves), default=0)
    ends = [curve.since(math.ceil(0.75 * last)) for curve in curves]
    ends = [end for end in ends if end.epochs]
    return ends if any(len(end.epochs) >= LEAST_EPOCHS for end in ends) else []


def sampled(places: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the places, evenly spaced, with the first and the last."""
    if len(places) <= most:
        return list(places)
    step = (len(places) - 1) / (most - 1)
    return [places[round(at * step)] for at in range(most)]


def _metric(runs: Sequence[Run]) -> str:
    known = [run.result.metrics for run in runs if run.result]
    return next((metric for metric in TOP1_BY_EPOCH if any(metric in metrics for metrics in known)), TEST_TOP1)


def _histories(row: Row, runs: Mapping[str, Run], metric: str) -> list[Mapping[int, float]]:
    return [runs[name].history(metric) for name in row.fingerprints]


def _curve(label: str, style: Style, histories: Sequence[Mapping[int, float]]) -> Curve | None:
    """Return the curve over the epochs that all seeds have; None if these are fewer than two."""
    common = set.intersection(*(set(history) for history in histories))
    epochs = sampled(sorted(common), MOST_EPOCHS)
    values = [[100 * history[epoch] for history in histories] for epoch in epochs]
    kept = [(epoch, seeds) for epoch, seeds in zip(epochs, values, strict=True) if all(map(math.isfinite, seeds))]
    if len(kept) < 2:
        return None
    return Curve(
        label,
        style,
        epochs=tuple(epoch for epoch, _ in kept),
        mean=tuple(math.fsum(seeds) / len(seeds) for _, seeds in kept),
        low=tuple(min(seeds) for _, seeds in kept),
        high=tuple(max(seeds) for _, seeds in kept),
        seeds=len(histories),
    )


def _figure(name: str, of: str, metric: str, curves: Sequence[Curve], labels: Sequence[str], left_out: str) -> Figure:
    def draw(axes: Axes) -> None:
        for at, curve in enumerate(curves):
            color = curve.style.color
            if len(curves) <= MOST_BANDS:
                axes.fill_between(curve.epochs, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
            # Markers of different curves are at different epochs, so that none hides another.
            every = max(len(curves), len(curve.epochs) // 6)
            first = at * every // len(curves) % len(curve.epochs)
            line = {"color": color, "linestyle": curve.style.dash, "marker": curve.style.marker, "mfc": "none"}
            axes.plot(curve.epochs, curve.mean, label=curve.label, markevery=(first, every), **line)  # type: ignore[arg-type]
        scales.whole_numbers(axes, "x")
        scales.in_percent(axes, "y")
        axes.set_xlabel("epoch")
        axes.set_ylabel(_AXES[metric])

    without = [label for label in labels if label not in {curve.label for curve in curves}]
    caption = joined(_lines(curves), f"No values at these epochs: {', '.join(without)}." if without else "", left_out)
    alt = "; ".join(
        f"{curve.label}: {curve.mean[0]:.1f} % at epoch {curve.epochs[0]}, {curve.mean[-1]:.1f} % at epoch "
        f"{curve.epochs[-1]} (seeds from {curve.low[-1]:.1f} to {curve.high[-1]:.1f} %)"
        for curve in curves
    )
    return Figure(name, f"Learning curves, {of}", caption, f"{alt}.", draw)


def _lines(curves: Sequence[Curve]) -> str:
    if all(curve.seeds == 1 for curve in curves):
        return "One seed each: no bands."
    bands = "Bands: range over seeds." if len(curves) <= MOST_BANDS else "Too many lines for bands."
    return f"Lines: mean over the finished seeds. {bands}"
