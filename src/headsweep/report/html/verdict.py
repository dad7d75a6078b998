"""The verdict of the page: which cells are shown to differ from their baseline, by how much, and which are not."""

from __future__ import annotations

from collections.abc import Sequence

from headsweep.report.formats.html import escape
from headsweep.report.html.captions import span
from headsweep.report.html.labels import baseline_names, cell_label, difference_texts, metric_label
from headsweep.report.html.sections import Section
from headsweep.report.stats.inference import LEVEL
from headsweep.report.table.model import Row, Table
from headsweep.text import plural

MOST_NAMED = 6  # cells with one verdict
_UNDECIDED = "undecided"


def verdict(table: Table) -> Section:
    """Return one sentence with the numbers of cells by verdict, and below it the cells with their differences."""
    rows = [row for row in table.rows if row.difference]
    if not rows:
        return Section("verdict", "Verdict", "<p>None: no two cells can be compared.</p>")
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _claim(row) == _UNDECIDED):
        groups.setdefault(_claim(row), []).append(row)
    listed = "".join(_named(table, claim, found) for claim, found in groups.items())
    return Section("verdict", "Verdict", f'<p class="summary">{escape(_summary(table, rows, groups))}</p>{listed}')


def _claim(row: Row) -> str:
    if row.is_better:
        return "better"
    is_worse = row.undecided is None and row.p is not None and row.p < LEVEL
    return "worse" if is_worse else _UNDECIDED


def _summary(table: Table, rows: Sequence[Row], groups: dict[str, list[Row]]) -> str:
    images = {row.difference_over_images.images for row in rows if row.difference_over_images}
    counts = ", ".join(f"{len(found)} {claim}" for claim, found in groups.items())
    seeds = [row.difference.n for row in rows if row.difference]
    return (
        f"Of {plural(len(rows), 'cell')} compared with the baseline ({baseline_names(table)}) in "
        f"{metric_label(table.metric)}: {counts} (paired t-tests over {span(seeds)} seeds"
        + (f", {span(sorted(images))} test images" if images else "")
        + f"; p < {LEVEL:g} after Holm's correction)."
    )


def _named(table: Table, claim: str, rows: Sequence[Row]) -> str:
    """Return the cells with one verdict; those undecided with their reason."""
    shown = rows[:MOST_NAMED]
    items = [
        f"<li>{escape(cell_label(table, row))}: {escape(text)}"
        + (f" ({escape(row.undecided)})" if row.undecided else "")
        + "</li>"
        for row, text in zip(shown, difference_texts(shown), strict=True)
    ]
    more = len(rows) - len(shown)
    rest = f"<li>and {more} more, in the table</li>" if more else ""
    return f"<h3>{escape(claim.capitalize())}</h3><ul>{''.join(items)}{rest}</ul>"
