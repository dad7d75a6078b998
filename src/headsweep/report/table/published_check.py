"""Check the results of rows against published ones, within the tolerance stated for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from headsweep.report.read.select import name_of
from headsweep.report.table.model import Row
from headsweep.report.table.published import Number, PublishedRow, Source
from headsweep.text import plural

_NOUNS = {"top1": "top-1", "top5": "top-5", "parameters": "parameters"}


def within_tolerance(row: Row) -> bool | None:
    """Return whether the row agrees with all numbers published for it; None where there is none."""
    answers = [_agrees(result, number) for _, _, number, result in _pairs(row)]
    return all(answers) if answers else None


def footnotes(rows: Sequence[Row], axes: Sequence[str], sources: Sequence[Source]) -> Iterator[str]:
    """Where the published numbers come from, and which rows are outside their tolerances."""
    for source in sources:
        if shown := [entry for entry in source.rows if any(entry in row.published for row in rows)]:
            notes = "".join(f" {entry.printed_as}: {entry.note}." for entry in shown if entry.note)
            yield f"Published: {source.source}, {source.evaluation}.{notes} {source.link}"
    misses = [
        f"{name_of(row.head, row.heads, dict(zip(axes, row.axes, strict=True)))}: {', '.join(_misses(row))}"
        for row in rows
        if within_tolerance(row) is False
    ]
    if misses:
        yield f"NOT REPRODUCED: {'; '.join(misses)}."
    elif agreeing := Counter(metric for row in rows for metric in {metric for _, metric, _, _ in _pairs(row)}):
        found = ", ".join(
            f"{_NOUNS[metric]} of {plural(agreeing[metric], 'row')}" for metric in _NOUNS if agreeing[metric]
        )
        yield f"Reproduced: {found} within the tolerances of the published values."


def _pairs(row: Row) -> Iterator[tuple[PublishedRow, str, Number, float]]:
    """Yield every published number that the row has a result for, with that result in the same unit."""
    results = {
        "top1": 100 * row.top1.mean if row.top1 else None,
        "top5": 100 * row.top5.mean if row.top5 else None,
        "parameters": row.parameters,
    }
    for entry in row.published:
        for metric, result in results.items():
            number = getattr(entry, metric)
            if number is not None and result is not None:
                yield entry, metric, number, result


def _agrees(result: float, number: Number) -> bool:
    return abs(result - number.value) <= number.tolerance + 1e-9  # percents are no exact binary numbers


def _misses(row: Row) -> Iterator[str]:
    for entry, metric, number, result in _pairs(row):
        if not _agrees(result, number):
            values = (result, number.value, number.tolerance)
            found, published, within = (f"{n:,.0f}" if metric == "parameters" else f"{n:.2f}" for n in values)
            yield f"{_NOUNS[metric]} {found}, published {published} ± {within} ({entry.source}, {entry.printed_as})"
