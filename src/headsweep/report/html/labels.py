"""Labels of metrics, cells and lines in figures and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from headsweep.report.read.cells import MISSING, VARIANT
from headsweep.report.table.columns import ABSENT, COLUMNS, UNDECIDED
from headsweep.report.table.metrics import METRICS, PERCENT
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


def quality_noun(table: Table) -> str:
    """Return "accuracy" for metrics in percent, for others the metric."""
    return "accuracy" if METRICS[table.metric].unit is PERCENT else metric_noun(table)


def metric_axis(table: Table) -> str:
    """Return the compared metric at an axis, with its split and unit."""
    return f"{metric_label(table.metric)} ({METRICS[table.metric].unit.axis})"


def series_label(table: Table, row: Row) -> str:
    """Return head, variant and the values of the axes, without those that were tuned and the number of heads."""
    named = zip(table.axes, row.axes, strict=True)
    options = [
        value if axis == VARIANT else f"{axis.removesuffix('.name').rpartition('.')[2]} {value}"
        for axis, value in named
        if value != MISSING and axis not in table.tuned
    ]
    return ", ".join([row.head, *options])


def cell_label(table: Table, row: Row) -> str:
    """Return the label of a single cell."""
    return f"{series_label(table, row)}, {plural(row.heads, 'head')}"


def difference_texts(rows: Sequence[Row]) -> list[str]:
    """Return the difference of each row from its baseline, with intervals, p and n, as in the table."""
    names = ("difference", "difference_images", "p")
    columns = zip(*(COLUMNS[name].entries(rows)[1] for name in names), strict=True)
    return [
        f"{difference.text} {METRICS[row.metric].unit.short}"
        + ("" if wide.half_width is None else f" (± {wide.half_width:.{wide.decimals}f} over seeds and test images)")
        + ("" if p in (ABSENT, UNDECIDED) else f", p {p.text}")
        + (f", n = {row.difference.n}" if row.difference else "")
        for row, (difference, wide, p) in zip(rows, columns, strict=True)
    ]
