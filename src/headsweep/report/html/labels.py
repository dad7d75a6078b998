"""Labels of metrics, cells and lines in figures and sentences."""

from __future__ import annotations

from headsweep.report.read.cells import MISSING
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Row, Table
from headsweep.text import plural
from headsweep.tracking.metric_names import TEST_TOP1, VAL_TOP1

LOGGED = {VAL_TOP1: "validation top-1", TEST_TOP1: "test top-1"}  # after each epoch


def metric_label(metric: str) -> str:
    """Return a metric with its split, e.g. "test top-1"."""
    noun = METRICS[metric].noun
    return noun.replace("val ", "validation ", 1) if noun.startswith("val ") else f"test {noun}"


def metric_noun(table: Table) -> str:
    """Return the compared metric in a sentence, e.g. "top-1"."""
    return METRICS[table.metric].noun


def metric_axis(table: Table) -> str:
    """Return the compared metric at an axis, with its split and unit."""
    return f"{metric_label(table.metric)} (%)"


def capitalized(words: str) -> str:
    """Return the words with an upper-case first letter, the others unchanged."""
    return words[:1].upper() + words[1:]


def series_label(table: Table, row: Row) -> str:
    """Return the head and the values of the axes, without the number of heads."""
    options = [
        f"{axis.removesuffix('.name').rpartition('.')[2]} {value}"
        for axis, value in zip(table.axes, row.axes, strict=True)
        if value != MISSING and axis not in table.tuned
    ]
    return ", ".join([row.head, *options])


def cell_label(table: Table, row: Row) -> str:
    """Return the label of a single cell."""
    return f"{series_label(table, row)}, {plural(row.heads, 'head')}"
