"""Lines over the epochs, with a band over the seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from headsweep.report.html import scales
from headsweep.report.html.captions import joined
from headsweep.report.html.drawing import Mark
from headsweep.report.html.histories import History
from headsweep.report.html.selection import Selection, Series
from headsweep.report.html.styles import Style
from headsweep.report.table.model import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_FIGURES = 6  # numbers of heads with a figure
MOST_EPOCHS = 60  # points of a curve
MOST_BANDS = 3  # lines in a figure with bands
MARKERS = 6  # of a curve, about

Band = Callable[[Sequence[float]], tuple[float, float]]  # lower and upper end, from the values of the seeds


@dataclass(frozen=True)
class Curve:
    """A line and its band over the seeds, in percent or percentage points."""

    label: str
    style: Style
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int

    def since(self, epoch: int) -> Curve:
        """Return the part from `epoch` on."""
        at = sum(one < epoch for one in self.epochs)
        parts = {name: getattr(self, name)[at:] for name in ("epochs", "mean", "low", "high")}
        return replace(self, **parts)


def curve(label: str, style: Style, histories: Sequence[History], band: Band) -> Curve | None:
    """Return the curve over the epochs that all seeds have; None if these are fewer than two."""
    common = set.intersection(*(set(history) for history in histories)) if histories else set()
    epochs = sampled(sorted(common), MOST_EPOCHS)
    values = [[100 * history[epoch] for history in histories] for epoch in epochs]
    kept = [(epoch, seeds) for epoch, seeds in zip(epochs, values, strict=True) if all(map(math.isfinite, seeds))]
    if len(kept) < 2:
        return None
    low, high = zip(*(band(seeds) for _, seeds in kept), strict=True)
    return Curve(
        label,
        style,
        epochs=tuple(epoch for epoch, _ in kept),
        mean=tuple(fmean(seeds) for _, seeds in kept),
        low=low,
        high=high,
        seeds=len(histories),
    )


def sampled(places: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the places, evenly spaced, with the first and the last."""
    if len(places) <= most:
        return list(places)
    step = (len(places) - 1) / (most - 1)
    return [places[round(at * step)] for at in range(most)]


def shown_counts(selection: Selection) -> tuple[list[int], str]:
    """Return the up to MOST_FIGURES numbers of heads that have a figure, and a sentence about what is left out."""
    shown = sampled(selection.counts, MOST_FIGURES)
    skipped = [str(heads) for heads in selection.counts if heads not in shown]
    return shown, joined(f"Not shown: {', '.join(skipped)} heads." if skipped else "", selection.sentence)


def rows_with(selection: Selection, heads: int) -> list[tuple[Series, Row]]:
    """Return the drawn rows with that number of heads, each with its series."""
    return [(one, row) for one in selection.series for row in one.rows if row.heads == heads]


def draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw the curves, with bands if they are few, over whole epochs."""
    for one, (first, every) in zip(curves, _markers(curves), strict=True):
        color = one.style.color
        if len(curves) <= MOST_BANDS:
            axes.fill_between(one.epochs, one.low, one.high, color=color, alpha=0.15, linewidth=0)
        line = {"color": color, "linestyle": one.style.dash, "marker": one.style.marker, "mfc": "none"}
        axes.plot(one.epochs, one.mean, label=one.label, markevery=(first, every), **line)  # type: ignore[arg-type]
    scales.whole_numbers(axes)
    axes.set_xlabel("epoch")


def marks(curves: Sequence[Curve], spell: Callable[[float, float, float], str]) -> list[Mark]:
    """Return the points with a marker, and the last one of each curve; `spell` gets mean, low and high."""
    found = []
    for one, (first, every) in zip(curves, _markers(curves), strict=True):
        last = len(one.epochs) - 1
        for at in dict.fromkeys((*range(first, last, every), last)):
            text = spell(one.mean[at], one.low[at], one.high[at])
            found.append(Mark(one.epochs[at], one.mean[at], f"{one.label}, epoch {one.epochs[at]}: {text}"))
    return found


def bands(curves: Sequence[Curve], what: str) -> str:
    """Explain lines and bands; `what` are the bands."""
    if all(one.seeds == 1 for one in curves):
        return "One seed each: no bands."
    return f"Bands: {what}." if len(curves) <= MOST_BANDS else "Too many lines for bands."


def _markers(curves: Sequence[Curve]) -> list[tuple[int, int]]:
    """Return the first point of each curve with a marker, and every how many it has one.

    Those of different curves are at different epochs, so that none hides another.
    """
    found = []
    for at, one in enumerate(curves):
        every = max(len(curves), len(one.epochs) // MARKERS)
        found.append((at * every // len(curves) % len(one.epochs), every))
    return found
