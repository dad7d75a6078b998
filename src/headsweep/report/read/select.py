"""Select and name cells by their values, as on a command line: `head=seqattn heads=4`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.config.omegaconf_errors import unknown_key
from headsweep.config.values import canonical, matches
from headsweep.errors import UserError
from headsweep.report.read.cells import MISSING, Cell


def select_cells(cells: Sequence[Cell], values: Mapping[str, str]) -> list[Cell]:
    """Return the cells that have all `values`: dotted key, or a group such as `head` for its name -> value.

    Raises:
        UserError: no cell has them, or no cell has such a key.
    """
    for key in values:
        if not any(cell.has(key) for cell in cells):
            raise unknown_key(key)
    selected = [cell for cell in cells if _has(cell, values)]
    if not selected:
        known = "; ".join(f"{key} is {_known(cells, key)}" for key in values)
        raise UserError(f"{spelled(values)}: no such cell among {len(cells)}; {known}")
    return selected


def spelled(values: Mapping[str, object]) -> str:
    """Return values as the words KEY=VALUE."""
    return " ".join(f"{key}={value}" for key, value in values.items())


def cell_name(cell: Cell, axes: Sequence[str]) -> str:
    """Return head, heads and the values on the other `axes` that the cell has, e.g. "head=ga heads=4 clip_norm=1.0"."""
    return name_of(cell.head, cell.heads, {axis: cell.value(axis) for axis in axes})


def name_of(head: str, heads: int, axes: Mapping[str, object]) -> str:
    """Return the name of a cell from its values; those that it does not have are left out."""
    others = {axis: value for axis, value in axes.items() if value not in (None, MISSING)}
    return spelled({"head": head, "heads": heads, **others})


def _has(cell: Cell, values: Mapping[str, str]) -> bool:
    return all(cell.has(key) and matches(value, cell.value(key)) for key, value in values.items())


def _known(cells: Sequence[Cell], key: str) -> str:
    return ", ".join(dict.fromkeys(canonical(cell.value(key)) for cell in cells if cell.has(key)))
