"""A table as an HTML element with its footnotes, without style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as with_entities
from itertools import groupby

from headsweep.report.table.columns import COLUMNS, Entry
from headsweep.report.table.layout import Heading, Sheet
from headsweep.text import one_line

OPENING = '<table class="comparison">'


def write(sheet: Sheet) -> str:
    """Return the sheet as <table>, and its footnotes, if it has any, as <ul>."""
    titles = "".join(map(_heading, sheet.headings))
    rows = [f"<tr>{''.join(map(_cell, sheet.headings, row))}</tr>" for row in sheet.rows]
    notes = [f"<li>{escape(note)}</li>" for note in sheet.notes()]
    lines = [
        OPENING,
        f"<thead>{_groups(sheet.headings)}<tr>{titles}</tr></thead>",
        *("<tbody>", *rows, "</tbody>", "</table>"),
        *(('<ul class="footnotes">', *notes, "</ul>") if notes else ()),
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return the text in one line, with the special characters of HTML escaped."""
    return with_entities(one_line(text))


def _groups(headings: Sequence[Heading]) -> str:
    if not any(heading.group for heading in headings):
        return ""
    groups = [(group, len(list(members))) for group, members in groupby(headings, key=lambda heading: heading.group)]
    cells = "".join(
        f'<th colspan="{width}" scope="colgroup">{escape(group)}</th>' if group else f'<td colspan="{width}"></td>'
        for group, width in groups
    )
    return f"<tr>{cells}</tr>"


def _heading(heading: Heading) -> str:
    return f'<th scope="col"{_class(heading)}>{escape(heading.label)}</th>'


def _cell(heading: Heading, entry: Entry) -> str:
    text = escape(entry.text)
    if heading.name not in COLUMNS:  # an axis, which names the row
        return f'<th scope="row"{_class(heading)}>{text}</th>'
    return f"<td{_class(heading)}>{f'<strong>{text}</strong>' if entry.bold else text}</td>"


def _class(heading: Heading) -> str:
    return ' class="number"' if heading.is_number else ""
