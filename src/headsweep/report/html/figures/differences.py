"""Each cell minus its baseline, seed by seed: what the table's differences, intervals and tests are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headsweep.report.html import scales
from headsweep.report.html.drawing import INK, PAPER, Figure
from headsweep.report.html.figures.by_heads import MOST_ROWS, best_words, joined, range_words, without_spread
from headsweep.report.html.ranking import spoken
from headsweep.report.html.selection import Selection, cell_label, metric_noun
from headsweep.report.stats.inference import LEVEL, Difference
from headsweep.report.table.build import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def differences(table: Table, selection: Selection) -> Figure | None:
    """Draw each cell's mean difference to its baseline, with its interval; None if no cell has a baseline."""
    known = [row for row in table.rows if row.difference]
    rows = selection.ranking.best(known, MOST_ROWS)
    found = [(row, row.difference) for row in rows if row.difference]
    if not found:
        return None
    labels = [cell_label(table, row) for row, _ in found]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        for at, (row, difference) in enumerate(found):
            style = selection.style(row)
            half = [100 * difference.half_width] if difference.half_width is not None else None
            face = style.color if is_significant(row) else PAPER
            axes.errorbar(
                [100 * difference.mean], [at], xerr=half, fmt=style.marker, color=style.color, mfc=face, capsize=3
            )
        scales.rows(axes, labels)
        scales.in_points(axes, "x")
        axes.set_xlabel(f"Δ {spoken(table.metric)} (percentage points)")

    words = [
        f"{_baseline(table)}, paired by seed (n = {range_words([it.n for _, it in found])}); the line at 0 is the "
        "baseline.",
        _intervals(table, [difference for _, difference in found]),
        best_words(selection, len(known)),
    ]
    alt = "; ".join(f"{label} {_said(difference)}" for label, (_, difference) in zip(labels, found, strict=True))
    title = f"Differences in {metric_noun(table)} to the baseline"
    return Figure("paired-differences", title, joined(*words), f"{alt}.", draw, scales.rows_height(labels))


def is_significant(row: Row) -> bool:
    """Is the row's difference, better or worse, significant after correction for all planned differences?"""
    return row.p is not None and row.p < LEVEL


def _baseline(table: Table) -> str:
    heads = dict.fromkeys(row.head for row in table.rows if row.is_reference)
    return f"Each cell minus its baseline ({', '.join(heads)}: the rows that the table calls reference)"


def _intervals(table: Table, found: Sequence[Difference]) -> str:
    without = sum(difference.half_width is None for difference in found)
    if without == len(found):
        return f"No intervals ({without_spread(found)}): no cell is claimed to be better or worse."
    some = f" {without} of {len(found)} have none: {without_spread(found)}." if without else ""
    return (
        f"Bars are 95 % t-intervals of the mean difference, uncorrected.{some} Filled: p < {LEVEL:g} in a paired "
        "t-test, Holm-corrected for all planned differences; hollow: no such claim."
    )


def _said(difference: Difference) -> str:
    within = f" ± {100 * difference.half_width:.2f}" if difference.half_width is not None else ""
    return f"{100 * difference.mean:+.2f}{within} points"
