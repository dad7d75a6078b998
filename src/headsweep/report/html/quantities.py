"""What training took, as quantities to compare cells by."""

from __future__ import annotations

from collections.abc import Sequence

from headsweep.report.html import scales
from headsweep.report.html.figures.by_heads import Quantity, Value
from headsweep.report.table.build import Row, Table

_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def measured(table: Table) -> tuple[Quantity, ...]:
    """Return time and memory: of GPUs where any run has been on one, since a process's memory is another quantity."""
    has_gpu = any("peak_gpu_memory_gib" in row.costs for row in table.rows)
    place, key = ("GPU", "peak_gpu_memory_gib") if has_gpu else ("process", "peak_memory_gib")

    def memory(row: Row) -> Value | None:
        return (row.costs[key], None) if key in row.costs else None

    return (
        _time(table),
        Quantity("memory", f"{place} memory", f"peak {place} memory (GiB)", "GiB", memory, scales.from_zero, _note),
    )


def _time(table: Table) -> Quantity:
    longest = max((row.costs.get("train_seconds", 0.0) for row in table.rows), default=0.0)
    size, unit = next(((size, unit) for size, unit in _UNITS if longest >= 2 * size), _UNITS[-1])

    def time(row: Row) -> Value | None:
        return (row.costs["train_seconds"] / size, None) if "train_seconds" in row.costs else None

    return Quantity("time", "training time", f"training time ({unit})", unit, time, scales.from_zero, _note, 1)


def _note(rows: Sequence[Row]) -> str:
    alone = all(len(row.seeds) == 1 for row in rows)
    return "One seed each." if alone else "Medians over seeds, as measured beside whatever else the machine did."
