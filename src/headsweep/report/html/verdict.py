"""The verdict of the page: which cells are shown to differ from their baseline, by how much, and which are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.report.formats.html import escape
from headsweep.report.html.captions import span
from headsweep.report.html.labels import cell_label, difference_texts, metric_label
from headsweep.report.html.sections import Section
from headsweep.report.stats.inference import LEVEL
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Row, Table
from headsweep.text import plural

MOST_NAMED = 6  # cells with one verdict
_UNDECIDED = "undecided"
_ORDER = ("better", "equivalent, better", "equivalent", "not worse", "equivalent, worse", "worse", _UNDECIDED)


def verdict(table: Table) -> Section:
    """Return one sentence with the number of cells by verdict, and below it the cells with their differences."""
    rows = [row for row in table.rows if (row.difference or row.undecided) and not row.is_baseline]
    if not rows:
        return Section("verdict", "Verdict", "<p>None: no two cells can be compared.</p>")
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _ORDER.index(_claim(row))):
        groups.setdefault(_claim(row), []).append(row)
    listed = "".join(_named(table, claim, found) for claim, found in groups.items())
    return Section("verdict", "Verdict", f'<p class="summary">{escape(_summary(table, rows, groups))}</p>{listed}')


def _claim(row: Row) -> str:
    if row.verdict:
        return ", ".join(row.verdict.claims) or _UNDECIDED
    if row.is_better:
        return "better"
    is_worse = row.undecided is None and row.p is not None and row.p < LEVEL
    return "worse" if is_worse else _UNDECIDED


def _summary(table: Table, rows: Sequence[Row], groups: Mapping[str, Sequence[Row]]) -> str:
    counts = ", ".join(f"{len(found)} {claim}" for claim, found in groups.items())
    seeds = [row.difference.n for row in rows if row.difference]
    images = {row.estimate_over_images.images for row in rows if row.estimate_over_images}
    over = [f"{span(seeds)} {'seed' if max(seeds) == 1 else 'seeds'}"] if seeds else []
    over += [f"{span(sorted(images))} test images"] if images else []
    margin = f" at a margin of ±{table.margin.points:g} {METRICS[table.metric].unit.short}" if table.margin else ""
    tests = f"paired t-tests over {' and '.join(over)}, " if over else ""
    return (
        f"Of {plural(len(rows), 'cell')} compared with the baseline ({table.baseline}) in "
        f"{metric_label(table.metric)}{margin}: {counts} ({tests}p < {LEVEL:g} after Holm's correction)."
    )


def _named(table: Table, claim: str, rows: Sequence[Row]) -> str:
    """Return the cells with one verdict; those undecided with their reason."""
    shown = rows[:MOST_NAMED]
    items = [
        f"<li>{escape(cell_label(table, row))}: {escape(_numbers(row, text))}</li>"
        for row, text in zip(shown, difference_texts(shown), strict=True)
    ]
    more = len(rows) - len(shown)
    rest = f"<li>and {more} more, in the table</li>" if more else ""
    return f"<h3>{escape(claim.capitalize())}</h3><ul>{''.join(items)}{rest}</ul>"


def _numbers(row: Row, text: str) -> str:
    if row.difference is None:
        return row.undecided or ""
    return f"{text} ({row.undecided})" if row.undecided else text
