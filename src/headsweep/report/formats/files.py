"""Write the table of a sweep beside its plan: table.md to read, table.csv with all numbers in full precision."""

from __future__ import annotations

from pathlib import Path

from headsweep.report.formats import csv, markdown
from headsweep.report.table.layout import flat
from headsweep.report.table.model import Table
from headsweep.report.table.over import below
from headsweep.tracking import atomic_files


def write(table: Table, folder: Path) -> None:
    """Write both files to `folder`."""
    parts = [markdown.write(flat(table)), *(f"{title}\n\n{markdown.write(sheet)}" for title, sheet in below(table))]
    atomic_files.write_text(folder / "table.md", "\n".join(parts))
    atomic_files.write_text(folder / "table.csv", csv.write(table))
