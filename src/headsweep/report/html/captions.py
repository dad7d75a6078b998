"""Sentences that the captions of several figures share."""

from __future__ import annotations

from collections.abc import Sequence

from headsweep.report.html.selection import Selection
from headsweep.report.stats.inference import Estimate
from headsweep.report.table.metrics import METRICS, PERCENT
from headsweep.report.table.model import Row, Table

MOST_ROWS = 24  # cells of a figure with one cell a row


def joined(*sentences: str) -> str:
    """Return the sentences that are not empty, as one text."""
    return " ".join(sentence for sentence in sentences if sentence)


def span(numbers: Sequence[int]) -> str:
    """Return e.g. "3", or "3 to 5" where the numbers differ."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def intervals(rows: Sequence[Row]) -> str:
    """Explain the error bars, and why some rows have none."""
    found = [row.compared for row in rows if row.compared]
    without = sum(estimate.half_width is None for estimate in found)
    if without == len(found):
        return f"No confidence intervals: {no_interval(found)}."
    some = f" {without} of {len(found)} have none: {no_interval(found)}." if without else ""
    bars = [(estimate, estimate.half_width) for estimate in found if estimate.half_width is not None]
    is_percent = all(METRICS[row.metric].unit is PERCENT for row in rows)
    is_cut = any(it.mean - half < 0 or (is_percent and it.mean + half > 1) for it, half in bars)
    cut = f" Bars are cut off at 0{' and 100 %' * is_percent}." if is_cut else ""
    return f"Bars: 95 % confidence intervals of the mean over seeds (n = {span([it.n for it, _ in bars])}).{some}{cut}"


def accuracy(table: Table, rows: Sequence[Row]) -> str:
    """Explain the error bars of accuracies, and what not to read from them."""
    is_paired = any(row.difference and row.difference.half_width for row in table.rows)
    shared = "Bars include the seed effect that all heads share; compare two heads by their paired differences."
    return joined(intervals(rows), shared if is_paired else "")


def no_interval(found: Sequence[Estimate]) -> str:
    """Return why those without an interval have none."""
    is_single = {estimate.n == 1 for estimate in found if estimate.half_width is None}
    if is_single == {True}:
        return "one seed each"
    return "all seeds have the same value" if is_single == {False} else "one seed, or seeds with the same value"


def best_rows(selection: Selection, known: int) -> str:
    """Return how MOST_ROWS of `known` cells were selected; "" if all are shown."""
    if known <= MOST_ROWS:
        return ""
    return f"Shown are the {MOST_ROWS} best of {known} cells {selection.ranking.by}; the table has all."
