"""The effect of the number of heads within each head, paired over seeds, as a table of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headsweep.errors import UserError
from headsweep.report.read.cells import MISSING, Cell
from headsweep.report.stats.inference import Difference, holm, paired_difference
from headsweep.report.stats.slope import mean_slope
from headsweep.report.table.columns import ABSENT, UNDECIDED, Entry, metric_entry, p_entry
from headsweep.report.table.layout import Heading, Sheet
from headsweep.report.table.metrics import METRICS, Unit
from headsweep.report.table.model import Note, Table
from headsweep.report.table.notes import undecided
from headsweep.text import plural

TITLE = "Effect of the number of heads"
_Key = tuple[str, ...]  # head and the values of the axes


@dataclass(frozen=True)
class Effect:
    """The cells that differ in the number of heads alone."""

    key: _Key
    counts: tuple[int, ...]  # numbers of heads with a finished run, ascending
    differences: Mapping[int, Difference]  # number of heads -> difference from the smallest number
    slope: Difference | None  # per doubling
    undecided: str | None  # why the slope supports no claim


def effects(table: Table) -> list[Effect]:
    """Return the effect for each head and setting of the other axes that has several numbers of heads."""
    cells = {run.record.fingerprint: cell for cell in table.cells for run in cell.runs}
    axes = _axes(table)
    ladders: dict[_Key, dict[int, Cell]] = {}
    for row in table.rows:
        key = (row.head, *(row.axes[table.axes.index(axis)] for axis in axes))
        ladders.setdefault(key, {})[row.heads] = cells[row.fingerprints[0]]
    return [_effect(key, ladder, table) for key, ladder in ladders.items() if len(ladder) > 1]


def sheet(table: Table) -> Sheet:
    """Return a row for each effect: differences from the smallest number of heads, slope per doubling and p.

    Raises:
        UserError: no head has several numbers of heads.
    """
    found = effects(table)
    if not found:
        raise UserError("--over heads: expected a head with at least 2 numbers of heads, found none")
    counts = sorted({count for effect in found for count in effect.differences})
    family = len(found) + table.lost  # each lost run may have been of one more
    ps = holm([effect.slope.p if effect.slope and not effect.undecided else None for effect in found], family)
    axes = _axes(table)
    headings = [Heading(name, name, is_number=False) for name in ("head", *axes)]
    headings += [Heading("difference", f"Δ {count} heads") for count in counts]
    headings += [Heading("difference", "slope/doubling"), Heading("n", "n"), Heading("p", "p")]
    rows = [_entries(effect, counts, p, METRICS[table.metric].unit) for effect, p in zip(found, ps, strict=True)]
    return Sheet(tuple(headings), tuple(rows), tuple(map(Note, _notes(table, found, axes))))


def _axes(table: Table) -> tuple[str, ...]:
    return tuple(axis for axis in table.axes if axis not in table.tuned)


def _effect(key: _Key, ladder: Mapping[int, Cell], table: Table) -> Effect:
    metric, expected = METRICS[table.metric], table.expected
    values = {count: found for count in sorted(ladder) if (found := metric.by_seed(ladder[count]))}
    counts = tuple(values)
    first = values[counts[0]] if counts else {}
    paired = {count: paired_difference(values[count], first) for count in counts[1:]}
    differences = {count: difference for count, difference in paired.items() if difference}
    slope = mean_slope(values) if len(counts) > 1 else None
    gaps = ((count, undecided.gap(ladder[count], metric, expected)) for count in ladder)
    named = (f"{gap} with {plural(count, 'head')}" for count, gap in gaps if gap)
    return Effect(key, counts, differences, slope, next(named, None) or undecided.too_little(slope) or table.no_claims)


def _entries(effect: Effect, counts: Sequence[int], p: float | None, unit: Unit) -> tuple[Entry, ...]:
    slope = effect.slope
    is_withheld = effect.undecided and slope is not None and slope.p is not None
    return (
        *(Entry(value) for value in effect.key),
        *(_difference(effect, count, unit) for count in counts),
        metric_entry(slope, unit, "+"),
        ABSENT if slope is None else Entry(str(slope.n)),
        UNDECIDED if is_withheld else p_entry(p),
    )


def _difference(effect: Effect, count: int, unit: Unit) -> Entry:
    """Return a difference, with its own n where the slope covers fewer seeds."""
    found = effect.differences.get(count)
    has_own_n = found is not None and effect.slope is not None and found.n != effect.slope.n
    return metric_entry(found, unit, "+", note=f"(n={found.n})" if found and has_own_n else "")


def _notes(table: Table, found: Sequence[Effect], axes: Sequence[str]) -> list[str]:
    smallest = sorted({effect.counts[0] for effect in found if effect.counts})
    notes = [
        f"Δ is the difference in {METRICS[table.metric].noun} from the smallest number of heads of the row "
        f"({', '.join(map(str, smallest)) or MISSING}), in {METRICS[table.metric].unit.difference}, paired by seed; "
        "slope/doubling is the least-squares slope against log2 of the number of heads, by seed, with its 95 % "
        "interval over seeds.",
        "p is that of the slope, two-sided, from a t-test over seeds, corrected (Holm) over "
        f"{plural(len(found) + table.lost, 'slope')}: a family of its own.",
    ]
    by_reason: dict[str, list[str]] = {}
    for effect in found:
        if effect.undecided:
            by_reason.setdefault(effect.undecided, []).append(" ".join(_named(effect, axes)))
    listed = (f"{undecided.named(names, len(found))} ({why})" for why, names in by_reason.items())
    return notes + [f"UNDECIDED: {'; '.join(listed)}."] * bool(by_reason)


def _named(effect: Effect, axes: Sequence[str]) -> list[str]:
    return [f"{axis}={value}" for axis, value in zip(("head", *axes), effect.key, strict=True) if value != MISSING]
