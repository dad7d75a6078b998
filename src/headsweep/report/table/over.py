"""The tables below the table: what it shows over one of its axes."""

from __future__ import annotations

from collections.abc import Iterator

from headsweep.report.table import heads_effect, over_datasets
from headsweep.report.table.layout import Sheet
from headsweep.report.table.model import Table

OVER = {"heads": heads_effect.sheet, "dataset": over_datasets.checked}


def below(table: Table) -> Iterator[tuple[str, Sheet]]:
    """Yield title and sheet of what the table supports: over numbers of heads, and over data sets."""
    if heads_effect.effects(table):
        yield heads_effect.TITLE, heads_effect.sheet(table)
    if over_datasets.has_several(table):
        yield over_datasets.TITLE, over_datasets.sheet(table)
