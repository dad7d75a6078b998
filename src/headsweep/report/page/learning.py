"""Accuracy by epoch: the mean over seeds and how far apart the seeds are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headsweep.report.page.comparing import joined
from headsweep.report.page.drawing import Figure
from headsweep.report.page.series import Selection, Style, count_label
from headsweep.report.results import Run
from headsweep.report.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_EPOCHS = 60  # places of a curve, however long the training
MOST_FIGURES = 6  # numbers of heads that get one
METRICS = {"val/top1": "validation top-1 %", "test/top1": "test top-1 %"}  # the first that a run has by epoch


@dataclass(frozen=True)
class Curve:
    """A line and its band, in percent."""

    label: str
    style: Style
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]  # of the worst seed
    high: tuple[float, ...]  # of the best seed


def learning_curves(table: Table, selection: Selection) -> list[Figure]:
    """A figure for each number of heads, of at most `MOST_FIGURES`; none if no run was evaluated by epoch."""
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
            figures.append(_figure(heads, metric, curves, [one.label for one, _ in rows], words))
    return figures


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
    )


def _figure(heads: int, metric: str, curves: Sequence[Curve], labels: Sequence[str], left_out: str) -> Figure:
    def draw(axes: Axes) -> None:
        for curve in curves:
            color = curve.style.color
            axes.fill_between(curve.epochs, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)
            every = max(1, len(curve.epochs) // 6)
            line = {"color": color, "linestyle": curve.style.dash, "marker": curve.style.marker, "markevery": every}
            axes.plot(curve.epochs, curve.mean, label=curve.label, **line)  # type: ignore[arg-type]
        axes.set_xlabel("epoch")
        axes.set_ylabel(METRICS[metric])

    without = [label for label in labels if label not in {curve.label for curve in curves}]
    words = [
        "Line: mean over seeds. Band: from the lowest to the highest seed.",
        f"Without values by epoch: {', '.join(without)}." if without else "",
        left_out,
    ]
    alt = "; ".join(
        f"{curve.label}: {curve.mean[0]:.1f} % at epoch {curve.epochs[0]}, {curve.mean[-1]:.1f} % at epoch "
        f"{curve.epochs[-1]}, seeds then from {curve.low[-1]:.1f} to {curve.high[-1]:.1f} %"
        for curve in curves
    )
    title = f"Learning curves, {count_label(heads)}"
    return Figure(f"learning-curves-{heads}", title, joined(*words), f"{alt}.", draw)
