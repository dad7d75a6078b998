"""Cells chosen and named by their values, in the words of a command line: `head=seqattn heads=4`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.config.omegaconf_errors import unknown_key
from headsweep.config.values import canonical, matches
from headsweep.errors import UserError
from headsweep.report.read.cells import Cell

Wanted = Mapping[str, str]  # dotted key, or a group such as `head`, which stands for its name -> value


def choose(cells: Sequence[Cell], wanted: Wanted) -> list[Cell]:
    """The cells that have all the `wanted` values.

    Raises:
        UserError: there is none, or no cell has such a key.
    """
    for key in wanted:
        if not any(cell.has(key) for cell in cells):
            raise unknown_key(key)
    chosen = [cell for cell in cells if _has(cell, wanted)]
    if not chosen:
        said = " ".join(f"{key}={value}" for key, value in wanted.items())
        known = "; ".join(f"{key} is {_values(cells, key)}" for key in wanted)
        raise UserError(f"{said}: no such cell among {len(cells)}; {known}")
    return chosen


def named(cell: Cell, axes: Sequence[str]) -> str:
    """What people call a cell beside others: head, heads, and its values on the other `axes` that it has."""
    others = [f"{axis}={cell.value(axis)}" for axis in axes if cell.value(axis) is not None]
    return " ".join([f"head={cell.head}", f"heads={cell.heads}", *others])


def _has(cell: Cell, wanted: Wanted) -> bool:
    return all(cell.has(key) and matches(value, cell.value(key)) for key, value in wanted.items())


def _values(cells: Sequence[Cell], key: str) -> str:
    return ", ".join(dict.fromkeys(canonical(cell.value(key)) for cell in cells if cell.has(key)))
