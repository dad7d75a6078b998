"""Quantities to compare cells by: accuracy, training time and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from headsweep.report.html import captions, scales
from headsweep.report.html.drawing import Value
from headsweep.report.html.labels import metric_axis, metric_noun
from headsweep.report.table.clocks import unsteady
from headsweep.report.table.columns import COLUMNS
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


@dataclass(frozen=True)
class Quantity:
    """A number of each row, and how it is drawn."""

    name: str  # of the figure's files
    noun: str  # in the figure's title
    axis: str  # label of its axis, with the unit
    read: Callable[[Row], Value | None]
    spell: Callable[[Row], str]  # with its unit, as in the table
    set_limits: Callable[[Axes, scales.Side], None]
    caption: Callable[[Sequence[Row]], str]


def accuracy(table: Table) -> Quantity:
    """Return the compared metric."""
    noun, axis = metric_noun(table), metric_axis(table)
    spell, caption = partial(accuracy_text, table), partial(captions.accuracy, table)
    return Quantity("accuracy", noun, axis, accuracy_of, spell, scales.of_metric(METRICS[table.metric].unit), caption)


def accuracy_text(table: Table, row: Row) -> str:
    """Return the compared metric of a row, as in the table."""
    return f"{COLUMNS[table.metric].entries([row])[1][0].text}{METRICS[table.metric].unit.suffix}"


def accuracy_of(row: Row) -> Value | None:
    """Return the compared metric of a row in its unit; None where it has none."""
    found, size = row.compared, METRICS[row.metric].unit.size
    return (size * found.mean, None if found.half_width is None else size * found.half_width) if found else None


def costs(table: Table) -> tuple[Quantity, ...]:
    """Return training time and memory, without a time that follows the load of the machine.

    Memory is that of GPUs if any run used one: a process's memory is another quantity.
    """
    has_gpu = any("peak_gpu_memory_gib" in row.costs for row in table.rows)
    device, key = ("GPU", "peak_gpu_memory_gib") if has_gpu else ("process", "peak_memory_gib")

    def memory(row: Row) -> Value | None:
        return (row.costs[key], None) if key in row.costs else None

    def spell(row: Row) -> str:
        return f"{row.costs[key]:.2f} GiB"

    time = () if unsteady(table.rows, "time") else (_time(table),)
    noun, axis = f"{device} memory", f"peak {device} memory (GiB)"
    return *time, Quantity("memory", noun, axis, memory, spell, scales.from_zero, _cost_caption)


def _time(table: Table) -> Quantity:
    longest = max((row.costs.get("train_seconds", 0.0) for row in table.rows), default=0.0)
    size, unit = next(((size, unit) for size, unit in _UNITS if longest >= 2 * size), _UNITS[-1])

    def time(row: Row) -> Value | None:
        return (row.costs["train_seconds"] / size, None) if "train_seconds" in row.costs else None

    def spell(row: Row) -> str:
        return f"{row.costs['train_seconds'] / size:.1f} {unit}"

    axis = f"training time ({unit})"
    return Quantity("time", "training time", axis, time, spell, scales.from_zero, _cost_caption)


def _cost_caption(rows: Sequence[Row]) -> str:
    if all(len(row.seeds) == 1 for row in rows):
        return "One seed each."
    return "Medians over seeds, as measured, including the effect of other load on the machine."
