"""A table as text, in the formats that tests read."""

from __future__ import annotations

import csv
import io

from rich.console import Console

from headsweep.report.formats import csv as csv_format
from headsweep.report.formats import markdown, terminal
from headsweep.report.table.layout import flat
from headsweep.report.table.model import Table


def as_markdown(table: Table) -> str:
    return markdown.write(flat(table))


def as_csv(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_format.write(table))))


def on_screen(table: Table, width: int = terminal.WIDEST, **options) -> str:
    """As printed to a console of that width, without colors unless given."""
    console = Console(width=width, file=io.StringIO(), **({"color_system": None} | options))
    terminal.show(table, console)
    return console.file.getvalue()
