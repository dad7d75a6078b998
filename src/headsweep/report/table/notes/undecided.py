"""Decide which differences support no claim, whatever their p, and give the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from headsweep.report.read.cells import Cell
from headsweep.report.read.select import name_of
from headsweep.report.stats.inference import LEAST_SEEDS, Difference
from headsweep.report.table.inconsistencies import seed_list
from headsweep.report.table.metrics import Metric
from headsweep.report.table.model import Row
from headsweep.text import plural
from headsweep.tracking.run_record import RunState

MOST_NAMED = 5  # rows of one reason
ONE_SEED, EQUAL = "1 seed", "the same difference for all seeds"
UNCHOSEN, UNEQUAL = "setting not chosen on validation images", "arms not tuned alike"
_EXPLAINED = (ONE_SEED, EQUAL, UNCHOSEN, UNEQUAL)  # by footnotes of their own
_FAILED = (RunState.failed, RunState.diverged)


def failed_runs(cell: Cell) -> int:
    """Return the number of planned runs of a cell that failed or diverged."""
    return sum(run.state in _FAILED for run in cell.runs)


def reason(
    cell: Cell, baseline: Cell, difference: Difference | None, metric: Metric, expected: Collection[int] = ()
) -> str | None:
    """Return why the difference of `cell` from `baseline` supports no claim; None if it may support one.

    The mean of the seeds that are left is biased where the worst have failed. A table that is read while runs are
    training is tested more than once.

    Args:
        cell, baseline: the two that are compared.
        difference: between them.
        metric: the compared one.
        expected: seeds that both should have, where runs of the sweep are missing.
    """
    gaps = ((gap(cell, metric, expected), ""), (gap(baseline, metric, expected), " (baseline)"))
    found = next((f"{why}{whose}" for why, whose in gaps if why), None)
    return found or too_little(difference)


def no_claims(is_unchosen: bool, is_unequal: bool) -> str | None:
    """Return why a table that varies settings without a choice, or chose unequally, supports no claim."""
    return UNCHOSEN if is_unchosen else UNEQUAL if is_unequal else None


def without_claims(rows: Sequence[Row], why: str | None) -> list[Row]:
    """Return the rows of a table, undecided where it supports no claim."""
    if why is None:
        return list(rows)
    return [replace(row, undecided=row.undecided or why, mcnemar_p=None) if row.difference else row for row in rows]


def footnotes(rows: Sequence[Row], axes: Sequence[str]) -> Iterator[str]:
    """Name the rows without a claim by reason, but for the reasons that other footnotes explain."""
    compared = [row for row in rows if row.difference]
    by_reason: dict[str, list[str]] = {}
    for row in compared:
        if row.undecided and row.undecided not in _EXPLAINED:
            name = name_of(row.head, row.heads, dict(zip(axes, row.axes, strict=True)))
            by_reason.setdefault(row.undecided, []).append(name)
    if by_reason:
        listed = "; ".join(f"{why}: {named(names, len(compared))}" for why, names in by_reason.items())
        yield f"UNDECIDED, shown without bold and without p: {listed}."


def gap(cell: Cell, metric: Metric, expected: Collection[int] = ()) -> str | None:
    """Return which of the planned runs of a cell have no number."""
    planned = len(cell.runs)
    if failed := failed_runs(cell):
        return f"{failed} of {plural(planned, 'seed')} failed"
    if left := planned - len(cell.finished):
        return f"{left} of {plural(planned, 'seed')} not finished"
    if missing := sorted(set(expected).difference(cell.seeds)):
        return f"{seed_list(missing)} missing"
    if without := planned - len(metric.by_seed(cell)):
        return f"{without} of {plural(planned, 'seed')} without a value"
    return None


def too_little(difference: Difference | None) -> str | None:
    """Return why a difference has no p that supports a claim."""
    if difference is None:
        return "no common seed"
    if difference.n < LEAST_SEEDS:
        return plural(difference.n, "seed")
    return EQUAL if difference.p is None else None


def named(names: Sequence[str], compared: int) -> str:
    """Return the names of the first of the `compared` rows that share a reason."""
    if len(names) == compared > MOST_NAMED:
        return "all rows"
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {plural(more, 'more row')}" if more > 0 else "")
