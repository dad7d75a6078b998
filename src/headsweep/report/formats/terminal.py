"""Print a table to a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape as with_markup
from rich.measure import Measurement
from rich.table import Table as RichTable

from headsweep.report.table.columns import EXPENDABLE, Entry
from headsweep.report.table.layout import Heading, Sheet, flat
from headsweep.report.table.model import Table
from headsweep.report.table.over import below
from headsweep.text import one_line

WIDEST = 100_000  # characters; more than any table has


def screen() -> Console:
    """Return standard output: as wide as its terminal, unlimited in a pipe or file, whatever COLUMNS is."""
    return Console(width=None if sys.stdout.isatty() else WIDEST)


def show(table: Table, console: Console | None = None) -> None:
    """Print as many of the default columns as fit, and the names of the others; then the tables below the table."""
    console = console or screen()
    sheet, left_out = flat(table), []
    stack = _width(_rich(sheet, console)) > console.width
    for name in EXPENDABLE:
        if _width(_rich(sheet, console, stack)) <= console.width:
            break
        left_out += [heading.title for heading in sheet.headings if heading.name == name]
        sheet = sheet.without(name)
    hint = f"Columns that do not fit: {', '.join(left_out)} (see table.md)" if left_out else ""
    _print(sheet, console, stack, hint)
    for title, shown in below(table):
        console.print(f"\n{title}", style="bold", highlight=False)
        _print(shown, console)


def show_sheet(sheet: Sheet, console: Console | None = None) -> None:
    """Print every column, however wide."""
    _print(sheet, console or screen())


def escape(text: str) -> str:
    """Return the text in one line, with control characters and the markup of Rich escaped."""
    return with_markup(one_line(text))


def _print(sheet: Sheet, console: Console, stack: bool = False, hint: str = "") -> None:
    rich, width = _rich(sheet, console, stack), console.width
    console.width = max(width, _width(rich))  # what is still too wide is wrapped by the terminal
    console.print(rich, crop=False)
    console.width = width
    if hint:
        console.print(hint, style="yellow", highlight=False)
    for note in sheet.notes("Bold" if _has_bold(console) else "*"):
        console.print(escape(note), style="dim", highlight=False)


def _has_bold(console: Console) -> bool:
    """Return whether the console can show bold, which a pipe cannot."""
    return console.color_system is not None


def _width(rich: RichTable) -> int:
    """Return the characters that the table needs to show every entry in full."""
    console = Console(width=WIDEST)
    return Measurement.get(console, console.options, rich).maximum


def _rich(sheet: Sheet, console: Console, stack: bool = False) -> RichTable:
    """Return the sheet for Rich; with `stack` each flag of a row has a line of its own."""
    rich = RichTable(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    shared = len({heading.name for heading in sheet.headings if heading.group}) == 1
    for heading in sheet.headings:
        rich.add_column(_title(heading, shared), justify="right" if heading.is_number else "left", no_wrap=True)
    stacked = {at for at, heading in enumerate(sheet.headings) if stack and heading.name == "flags"}
    for row in sheet.rows:
        texts = [_text(entry, _has_bold(console)) for entry in row]
        rich.add_row(*(text.replace(", ", ",\n") if at in stacked else text for at, text in enumerate(texts)))
    return rich


def _title(heading: Heading, is_shared: bool) -> str:
    """Return the title of a column; the group alone where each group has one column without a unit."""
    if heading.group and is_shared and not heading.unit:
        return escape(heading.group)
    return "\n".join(escape(part) for part in (heading.group, heading.label) if part)


def _text(entry: Entry, has_bold: bool) -> str:
    text = escape(entry.text)
    if not entry.bold:
        return text
    return f"[bold]{text}[/bold]" if has_bold else f"*{text}"
