"""Differences from the baseline by epoch, paired by seed: when one head overtakes another, and whether it lasts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headsweep.report.html import scales
from headsweep.report.html.captions import joined, span
from headsweep.report.html.curves import bands, curve, draw_curves, marks, rows_with, shown_counts
from headsweep.report.html.drawing import INK, Figure
from headsweep.report.html.histories import Histories, History
from headsweep.report.html.labels import LOGGED
from headsweep.report.html.selection import Selection, Series
from headsweep.report.stats.inference import estimate
from headsweep.report.table.columns import human
from headsweep.report.table.model import Row
from headsweep.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def differences_by_epoch(selection: Selection, histories: Histories) -> dict[int, Figure]:
    """Return number of heads -> its figure; none where no cell has a baseline with the same epochs."""
    counts, left_out = shown_counts(selection)
    figures = {heads: _figure(rows_with(selection, heads), histories, left_out) for heads in counts}
    return {heads: figure for heads, figure in figures.items() if figure}


def _figure(rows: Sequence[tuple[Series, Row]], histories: Histories, left_out: str) -> Figure | None:
    """Draw the differences of rows with the same number of heads.

    Nothing is selected by these differences. The axis fits the second half of the epochs: in the first, heads that
    learn at different speeds differ by far more than at the end.
    """
    curves = [
        found
        for one, row in rows
        if (pairs := paired(histories.of(row.fingerprints), histories.of(row.baseline)))
        and (found := curve(one.label, one.style, pairs, _interval))
    ]
    if not curves:
        return None
    epochs = [epoch for _, row in rows for history in histories.of(row.fingerprints).values() for epoch in history]
    half = max(epochs) / 2
    shown = [one.since(math.floor(half) + 1) for one in curves]
    ended = [one.label for one, part in zip(curves, shown, strict=True) if not part.epochs]
    values = [0.0, *(value for part in shown for value in (*part.low, *part.high))]
    limits = scales.widened(1.05 * min(values), 1.05 * max(values), scales.LEAST_POINTS)

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=1)
        draw_curves(axes, curves)
        axes.set_ylim(limits)
        axes.set_ylabel(f"Δ {LOGGED[histories.metric]} (points)")

    caption = joined(
        f"{LOGGED[histories.metric].capitalize()} after each epoch, minus that of the baseline with the same seed "
        f"(n = {span([one.seeds for one in curves])}); the line at 0 is the baseline.",
        bands(curves, "95 % confidence intervals of the mean, each for its epoch alone"),
        "No epoch and no head is selected by it.",
        "The axis fits the second half of the epochs.",
        f"No values there: {', '.join(ended)}." if ended else "",
        left_out,
    )
    alt = "; ".join(
        f"{one.label}: {_spelled(one.mean[-1], one.low[-1], one.high[-1])} at epoch {one.epochs[-1]}" for one in curves
    )
    heads = rows[0][1].heads
    title = f"Difference from the baseline by epoch, {plural(heads, 'head')}"
    return Figure(f"differences-by-epoch-{heads}", title, caption, f"{alt}.", draw, marks=marks(curves, _spelled))


def paired(values: Mapping[int, History], baseline: Mapping[int, History]) -> list[History]:
    """Return epoch -> difference for each seed that both have, over the epochs that both have."""
    return [
        {epoch: value - baseline[seed][epoch] for epoch, value in history.items() if epoch in baseline[seed]}
        for seed, history in values.items()
        if seed in baseline
    ]


def _interval(seeds: Sequence[float]) -> tuple[float, float]:
    found = estimate(seeds)
    half = found.half_width or 0.0
    return found.mean - half, found.mean + half


def _spelled(mean: float, low: float, high: float) -> str:
    interval = f" (95 % interval {low:+.2f} to {high:+.2f})" if low < high else ""
    return human(f"{mean:+.2f} points{interval}")
