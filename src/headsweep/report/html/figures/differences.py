"""Paired differences between each cell and its baseline, as in the table, with the difference of each seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headsweep.report.html import captions, scales
from headsweep.report.html.captions import MOST_ROWS, joined
from headsweep.report.html.drawing import INK, PAPER, Figure, Mark, listed
from headsweep.report.html.labels import cell_label, metric_label, metric_noun
from headsweep.report.html.selection import Selection
from headsweep.report.stats.inference import LEVEL, Difference
from headsweep.report.table.columns import ABSENT, COLUMNS, human
from headsweep.report.table.model import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BELOW = 0.3  # of a row: from its mean to its seeds


def differences(table: Table, selection: Selection) -> Figure | None:
    """Draw the mean difference of each cell from its baseline, with its interval; None if no cell has a baseline."""
    known = [row for row in table.rows if row.difference]
    rows = selection.ranking.best(known, MOST_ROWS)
    found = [(row, row.difference) for row in rows if row.difference]
    if not found:
        return None
    labels = [cell_label(table, row) for row, _ in found]
    seeds = [
        (at, seed, 100 * value)
        for at, (_, difference) in enumerate(found)
        for seed, value in difference.by_seed.items()
        if difference.n > 1
    ]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        for at, (row, difference) in enumerate(found):
            style = selection.style(row)
            half = [100 * difference.half_width] if difference.half_width is not None else None
            face = style.color if is_significant(row) else PAPER
            look: dict[str, Any] = {"color": style.color, "mfc": face, "capsize": 3}
            axes.errorbar([100 * difference.mean], [at], xerr=half, fmt=style.marker, **look)
            dots = [value for place, _, value in seeds if place == at]
            axes.plot(dots, [at + _BELOW] * len(dots), ".", color=style.color, markersize=4)
        if seeds:
            axes.plot([], [], "D-", color=INK, label="mean and 95 % interval")
            axes.plot([], [], ".", color=INK, markersize=4, label="each seed")
        scales.rows(axes, labels)
        scales.in_points(axes, "x")
        axes.set_xlabel(f"Δ {metric_label(table.metric)} (percentage points)")

    caption = joined(
        f"Differences from the baseline ({_baseline(table)}), paired by seed (n = "
        f"{captions.span([difference.n for _, difference in found])}); the line at 0 is the baseline.",
        _intervals([difference for _, difference in found]),
        captions.best_rows(selection, len(known)),
    )
    means = [
        Mark(100 * difference.mean, at, f"{label}: {text}")
        for at, ((_, difference), label, text) in enumerate(zip(found, labels, _texts(rows), strict=True))
    ]
    dots = [
        Mark(value, at + _BELOW, f"{labels[at]}, seed {seed}: {human(f'{value:+.2f}')} points")
        for at, seed, value in seeds
    ]
    title = f"Difference in {metric_noun(table)} from the baseline"
    height = scales.rows_height(labels) + 0.06 * len(labels)
    return Figure("paired-differences", title, caption, listed(means), draw, height, (*means, *dots))


def is_significant(row: Row) -> bool:
    """Is the row significantly better or worse than its baseline, after correction?"""
    return row.p is not None and row.p < LEVEL


def _texts(rows: Sequence[Row]) -> list[str]:
    """Return the difference of each row and its p, as in the table."""
    columns = [COLUMNS[name].entries(rows)[1] for name in ("difference", "p")]
    return [
        f"{difference.text} points{'' if p == ABSENT else f', p {p.text}'}"
        for difference, p in zip(*columns, strict=True)
    ]


def _baseline(table: Table) -> str:
    return ", ".join(dict.fromkeys(row.head for row in table.rows if row.is_baseline))


def _intervals(found: Sequence[Difference]) -> str:
    without = sum(difference.half_width is None for difference in found)
    if without == len(found):
        return f"No confidence intervals ({captions.no_interval(found)}): no difference is significant."
    some = f" {without} of {len(found)} have none: {captions.no_interval(found)}." if without else ""
    return (
        f"Bars: 95 % confidence intervals of the mean difference, uncorrected.{some} Filled markers: p < {LEVEL:g} in "
        "a paired t-test, Holm-corrected over all planned differences; hollow: not significant."
    )
