"""Verdicts at a margin: each difference is better, worse, equivalent, not worse or undecided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from headsweep.report.stats.equivalence import OneSided, against_margin
from headsweep.report.stats.inference import LEVEL, holm
from headsweep.report.table.columns import MINUS
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Question, Row, Verdict
from headsweep.text import plural


def with_verdicts(rows: Sequence[Row], margin: float, family: int) -> list[Row]:
    """Return the rows with their verdicts at a margin in the unit of the compared metric (`Metric.unit`).

    There are three kinds of claims: better or worse (the two-sided p of the row), equivalent (TOST), and not worse (the
    one-sided test). Each kind is corrected (Holm) for `family` planned differences, so that a table makes a false claim
    of one kind in at most 5 % of studies. For a single difference this holds of all kinds together: if it is at or
    below -margin, each false claim (not worse, equivalent, better) requires that the one-sided test rejects.
    """
    tests = [_test(it, margin) for it in rows]
    not_worse = holm([test.not_worse if test else None for test in tests], family)
    equivalent = holm([test.equivalent if test else None for test in tests], family)
    return [
        replace(row, verdict=_verdict(row, above, both)) if _is_compared(row) else row
        for row, above, both in zip(rows, not_worse, equivalent, strict=True)
    ]


def _test(row: Row, margin: float) -> OneSided | None:
    metric = METRICS[row.metric]
    if row.difference is None or row.undecided:
        return None
    return against_margin(row.difference, margin / metric.unit.size, metric.sign)


def footnotes(rows: Sequence[Row], question: Question, family: int) -> Iterator[str]:
    """Explain the verdicts, if there are any."""
    if question.margin is None or not any(row.verdict for row in rows):
        return
    metric = METRICS[question.metric]
    points = f"{question.margin.points:g} {metric.unit.short}"
    limit = f"above {MINUS}{points}" if metric.sign > 0 else f"below +{points}"
    yield (
        f"Verdict at a margin of {points}, by paired t-tests over seeds at level {LEVEL:g}. Better, worse: the "
        f"difference is not 0 (two-sided). Equivalent: it is within ±{points} (two one-sided tests). Not worse: "
        f"it is {limit} (one-sided). Undecided: none of these is shown. Each of the three kinds "
        f"of claims is corrected (Holm) over {plural(family, 'planned difference')}."
    )


def warnings(question: Question) -> Iterator[str]:
    """Yield that the margin was chosen when results were known."""
    if question.margin is not None and question.margin.finished:
        runs = plural(question.margin.finished, "run")
        yield f"POST HOC: margin given after {runs} had finished, so it may follow from the results."


def _is_compared(row: Row) -> bool:
    return row.difference is not None or row.undecided is not None


def _verdict(row: Row, not_worse_p: float | None, equivalent_p: float | None) -> Verdict:
    if row.undecided:
        return Verdict((), row.undecided)
    return Verdict(tuple(_claims(row, not_worse_p, equivalent_p)), "", not_worse_p, equivalent_p)


def _claims(row: Row, not_worse_p: float | None, equivalent_p: float | None) -> Iterator[str]:
    is_equivalent = equivalent_p is not None and equivalent_p < LEVEL
    is_worse = row.p is not None and row.p < LEVEL and not row.is_better
    if is_equivalent:
        yield "equivalent"
    if row.is_better or is_worse:
        yield "better" if row.is_better else "worse"
    elif not is_equivalent and not_worse_p is not None and not_worse_p < LEVEL:
        yield "not worse"
