"""A table on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from headsweep.report.columns import EXPENDABLE, Entry
from headsweep.report.sheet import Sheet, flat

if TYPE_CHECKING:
    from headsweep.report.table import Table


def show(table: Table, console: Console) -> None:
    """Print as many of the usual columns as fit, whole; say which do not."""
    sheet, left_out = flat(table), []
    for name in EXPENDABLE:
        if _width(sheet, console) <= console.width:
            break
        left_out += [heading.title for heading in sheet.headings if heading.name == name]
        sheet = sheet.without(name)
    console.print(_rich(sheet))
    if left_out:
        console.print(f"Too wide for this screen: {', '.join(left_out)}. See table.md.", style="yellow")
    _print_footnotes(sheet, console)


def show_sheet(sheet: Sheet, console: Console) -> None:
    """Print every column whole, however wide."""
    width = console.width
    console.width = max(width, _width(sheet, console))
    console.print(_rich(sheet), crop=False)
    console.width = width
    _print_footnotes(sheet, console)


def _print_footnotes(sheet: Sheet, console: Console) -> None:
    for note in sheet.footnotes:
        console.print(escape(note), style="dim", highlight=False)


def _width(sheet: Sheet, console: Console) -> int:
    """Characters that the table needs to show every entry whole."""
    return Measurement.get(console, console.options.update(max_width=10_000), _rich(sheet)).maximum


def _rich(sheet: Sheet) -> RichTable:
    rich = RichTable(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    grouped = any(heading.group for heading in sheet.headings)
    shared = len({heading.name for heading in sheet.headings if heading.group}) == 1
    for heading in sheet.headings:
        title = (
            heading.group if grouped and shared and heading.group else f"{heading.group}\n{heading.title}".strip("\n")
        )
        rich.add_column(escape(title), justify="right" if heading.is_number else "left", no_wrap=True)
    for row in sheet.rows:
        rich.add_row(*map(_text, row))
    return rich


def _text(entry: Entry) -> str:
    return f"[bold]{escape(entry.text)}[/bold]" if entry.bold else escape(entry.text)
