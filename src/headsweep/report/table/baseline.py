"""Find the cell that each cell is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.config.values import canonical
from headsweep.errors import UserError
from headsweep.report.read.axes import group_of
from headsweep.report.read.cells import Cell
from headsweep.report.read.select import select_cells

Baseline = Mapping[str, str]  # dotted key -> value


def baselines(cells: Sequence[Cell], axes: Sequence[str], baseline: Baseline) -> list[Cell | None]:
    """For each cell return the one that has the baseline's values and otherwise agrees with it; None if there is none.

    Options of a head need not agree: they follow from the head. Of several candidates the first is taken.

    Args:
        cells: in the order of the plan.
        axes: the keys beside head and heads that distinguish cells.
        baseline: empty means the head of the first cell, with the same number of heads.

    Raises:
        UserError: no cell has the baseline's values.
    """
    values = baseline or {"head": cells[0].head}
    given = {group_of(key) for key in values}
    shared = [key for key in ("heads", *axes) if group_of(key) not in given and not key.startswith("head.")]
    try:
        candidates = select_cells(cells, values)
    except UserError as error:
        raise UserError(f"--baseline {error}") from error
    known: dict[tuple[str, ...], Cell] = {}
    for cell in candidates:
        known.setdefault(_values(cell, shared), cell)
    return [known.get(_values(cell, shared)) for cell in cells]


def _values(cell: Cell, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(canonical(cell.value(key)) for key in keys)
