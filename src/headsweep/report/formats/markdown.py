"""A table in GitHub's Markdown, followed by its footnotes as a list."""

from __future__ import annotations

import re

from headsweep.report.table.columns import Entry
from headsweep.report.table.layout import Heading, Sheet
from headsweep.text import one_line

# What begins a tag, an entity, a link, code, emphasis or strikethrough, or ends a cell; a single `<` or `*` does not.
_SPECIAL = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)|[\\`|\[\]]|[*~](?=\S)|(?<!\w)_(?=\S)")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}


def write(sheet: Sheet) -> str:
    """Return the sheet as Markdown."""
    lines = [
        _line([_title(heading) for heading in sheet.headings]),
        _line(["---:" if heading.is_number else "---" for heading in sheet.headings]),
        *(_line([_text(entry) for entry in row]) for row in sheet.rows),
    ]
    return "\n".join([*lines, "", *(f"- {escape(note)}" for note in sheet.notes())]) + "\n"


def escape(text: str) -> str:
    """Return the text in one line, with the special characters of Markdown escaped."""
    return _SPECIAL.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), one_line(text))


def comment(text: str) -> str:
    """Return the text as an HTML comment, which the text itself cannot end."""
    return f"<!-- {one_line(text).replace('-->', '-- >')} -->"


def _title(heading: Heading) -> str:
    return escape(f"{heading.group}: {heading.label}" if heading.group else heading.label)


def _text(entry: Entry) -> str:
    return f"**{escape(entry.text)}**" if entry.bold else escape(entry.text)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
