"""A table of GitHub's Markdown, then its footnotes as a list."""

from __future__ import annotations

from headsweep.report.columns import Entry
from headsweep.report.sheet import Heading, Sheet


def write(sheet: Sheet) -> str:
    """The sheet as text."""
    lines = [
        _line([_title(heading) for heading in sheet.headings]),
        _line(["---:" if heading.is_number else "---" for heading in sheet.headings]),
        *(_line([_text(entry) for entry in row]) for row in sheet.rows),
    ]
    return "\n".join([*lines, "", *(f"- {note}" for note in sheet.footnotes)]) + "\n"


def _title(heading: Heading) -> str:
    return f"{heading.group}: {heading.title}" if heading.group else heading.title


def _text(entry: Entry) -> str:
    return f"**{entry.text}**" if entry.bold else entry.text


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
