"""Accuracy by epoch: the mean over seeds and how far apart the seeds are.

The last quarter of the epochs is drawn again: on the scale of all epochs, curves of good heads lie on each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headsweep.report.html import scales
from headsweep.report.html.drawing import Figure
from headsweep.report.html.figures.by_heads import joined
from headsweep.report.html.selection import Selection, Style, count_label
from headsweep.report.read.cells import Run
from headsweep.report.table.build import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_EPOCHS = 60  # places of a curve, however long the training
MOST_FIGURES = 6  # numbers of heads that get one
LEAST_EPOCHS = 4  # of a curve's last quarter, to be drawn again
MOST_BANDS = 4  # lines whose bands do not hide each other
METRICS = {"val/top1": "validation top-1 (%)", "test/top1": "test top-1 (%)"}  # the first that a run has by epoch


@dataclass(frozen=True)
class Curve:
    """A line and its band, in percent."""

    label: str
    style: Style
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]  # of the worst seed
    high: tuple[float, ...]  # of the best seed
    seeds: int

    def since(self, epoch: int) -> Curve:
        """Return the part from an epoch on."""
        at = sum(one < epoch for one in self.epochs)
        parts = {name: getattr(self, name)[at:] for name in ("epochs", "mean", "low", "high")}
        return replace(self, **parts)


def learning_curves(table: Table, selection: Selection) -> list[Figure]:
    """Return a figure for each number of heads, of at most `MOST_FIGURES`, and one of its last quarter if it is long.

    None if no run was evaluated by epoch.
    """
    runs = {run.record.fingerprint: run for cell in table.cells for run in cell.runs}
    metric = _metric([runs[name] for row in selection.rows for name in row.fingerprints])
    shown = sampled(selection.counts, MOST_FIGURES)
    skipped = [str(heads) for heads in selection.counts if heads not in shown]
    words = joined(f"Not drawn: {', '.join(skipped)} heads." if skipped else "", selection.words)
    figures = []
    for heads in shown:
        rows = [(one, row) for one in selection.series for row in one.rows if row.heads == heads]
        curves = [curve for one, row in rows if (curve := _curve(one.label, one.style, _histories(row, runs, metric)))]
        if curves:
            labels = [one.label for one, _ in rows]
            figures.append(_figure(f"learning-curves-{heads}", count_label(heads), metric, curves, labels, words))
        if ends := last_quarter(curves):
            name, of = f"learning-curves-{heads}-end", f"{count_label(heads)}, last quarter of the epochs"
            figures.append(_figure(name, of, metric, ends, labels, words))
    return figures


def last_quarter(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves in the last quarter of the epochs; none where fewer than LEAST_EPOCHS lie in it."""
    last = max((curve.epochs[-1] for curve in curves), default=0)
    ends = [curve.since(math.ceil(0.75 * last)) for curve in curves]
    ends = [end for end in ends if end.epochs]
    return ends if any(len(end.epochs) >= LEAST_EPOCHS for end in ends) else []


def sampled(places: Sequence[int], most: int) -> list[int]:
    """At most `most` of them, evenly, with the first and the last."""
    if len(places) <= most:
        return list(places)
    step = (len(places) - 1) / (most - 1)
    return [places[round(at * step)] for at in range(most)]


def _metric(runs: Sequence[Run]) -> str:
    known = [run.result.metrics for run in runs if run.result]
    return next((metric for metric in METRICS if any(metric in metrics for metrics in known)), "test/top1")


def _histories(row: Row, runs: Mapping[str, Run], metric: str) -> list[Mapping[int, float]]:
    return [runs[name].history(metric) for name in row.fingerprints]


def _curve(label: str, style: Style, histories: Sequence[Mapping[int, float]]) -> Curve | None:
    """At the epochs that all seeds have; None if there are not two of them."""
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
            # Markers take turns, so that those of curves at one place do not hide each other.
            every = max(len(curves), len(curve.epochs) // 6)
            first = at * every // len(curves) % len(curve.epochs)
            line = {"color": color, "linestyle": curve.style.dash, "marker": curve.style.marker, "mfc": "none"}
            axes.plot(curve.epochs, curve.mean, label=curve.label, markevery=(first, every), **line)  # type: ignore[arg-type]
        scales.whole_numbers(axes, "x")
        scales.in_percent(axes, "y")
        axes.set_xlabel("epoch")
        axes.set_ylabel(METRICS[metric])

    without = [label for label in labels if label not in {curve.label for curve in curves}]
    words = [
        _line_words(curves),
        f"Without values at these epochs: {', '.join(without)}." if without else "",
        left_out,
    ]
    alt = "; ".join(
        f"{curve.label}: {curve.mean[0]:.1f} % at epoch {curve.epochs[0]}, {curve.mean[-1]:.1f} % at epoch "
        f"{curve.epochs[-1]}, seeds then from {curve.low[-1]:.1f} to {curve.high[-1]:.1f} %"
        for curve in curves
    )
    return Figure(name, f"Learning curves, {of}", joined(*words), f"{alt}.", draw)


def _line_words(curves: Sequence[Curve]) -> str:
    if all(curve.seeds == 1 for curve in curves):
        return "One seed each: no band."
    band = "Band: from the lowest to the highest seed."
    return (
        f"Line: mean over the seeds that finished. {band if len(curves) <= MOST_BANDS else 'Too many lines for bands.'}"
    )
