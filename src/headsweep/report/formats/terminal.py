"""A table on a screen."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape as with_markup
from rich.measure import Measurement
from rich.table import Table as RichTable

from headsweep.report.table.columns import EXPENDABLE, Entry
from headsweep.report.table.layout import Heading, Sheet, flat
from headsweep.text import one_line

if TYPE_CHECKING:
    from headsweep.report.table.build import Table

WIDEST = 100_000  # characters; more than any table has


def screen() -> Console:
    """Standard output: as wide as the terminal or as COLUMNS, and without an end where it is neither."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDEST)


def show(table: Table, console: Console) -> None:
    """Print as many of the usual columns as fit, whole; say which do not."""
    sheet, left_out = flat(table), []
    stack = _width(_rich(sheet, console)) > console.width
    for name in EXPENDABLE:
        if _width(_rich(sheet, console, stack)) <= console.width:
            break
        left_out += [heading.title for heading in sheet.headings if heading.name == name]
        sheet = sheet.without(name)
    gone = f"Too wide for this screen: {', '.join(left_out)}. See table.md." if left_out else ""
    _print(sheet, console, stack, gone)


def show_sheet(sheet: Sheet, console: Console) -> None:
    """Print every column, however wide."""
    _print(sheet, console)


def escape(text: str) -> str:
    """The text in one line, with what is special to a terminal or to Rich written out."""
    return with_markup(one_line(text))


def _print(sheet: Sheet, console: Console, stack: bool = False, gone: str = "") -> None:
    rich, width = _rich(sheet, console, stack), console.width
    console.width = max(width, _width(rich))  # what is too wide even so, the terminal breaks
    console.print(rich, crop=False)
    console.width = width
    if gone:
        console.print(gone, style="yellow", highlight=False)
    for note in sheet.notes("Bold" if _has_bold(console) else "*"):
        console.print(escape(note), style="dim", highlight=False)


def _has_bold(console: Console) -> bool:
    """Not in a pipe, nor on a terminal that cannot."""
    return console.color_system is not None


def _width(rich: RichTable) -> int:
    """Characters that the table needs to show every entry whole."""
    console = Console(width=WIDEST)
    return Measurement.get(console, console.options, rich).maximum


def _rich(sheet: Sheet, console: Console, stack: bool = False) -> RichTable:
    """The sheet, on request with a line for each flag of a row."""
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
    """The group stands for its columns where each has one, unless they have a unit."""
    if heading.group and is_shared and not heading.unit:
        return escape(heading.group)
    return "\n".join(escape(part) for part in (heading.group, heading.label) if part)


def _text(entry: Entry, has_bold: bool) -> str:
    text = escape(entry.text)
    if not entry.bold:
        return text
    return f"[bold]{text}[/bold]" if has_bold else f"*{text}"
