"""What each cell is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.config.values import canonical
from headsweep.errors import UserError
from headsweep.report.read.cells import Cell, group_of
from headsweep.report.read.select import choose

Baseline = Mapping[str, str]  # dotted key -> value


def references(cells: Sequence[Cell], axes: Sequence[str], baseline: Baseline) -> list[Cell | None]:
    """For each cell the one that has the baseline's values and otherwise agrees with it; None where there is none.

    Options of a head are no part of that agreement: they follow from the head. Of several candidates the first counts.

    Args:
        cells: in the order of the plan.
        axes: the keys beside head and heads that tell cells apart.
        baseline: what the reference is; empty means the head of the first cell, at the same number of heads.

    Raises:
        UserError: no cell has the baseline's values.
    """
    wanted = baseline or {"head": cells[0].head}
    asked = {group_of(key) for key in wanted}
    shared = [key for key in ("heads", *axes) if group_of(key) not in asked and not key.startswith("head.")]
    try:
        candidates = choose(cells, wanted)
    except UserError as error:
        raise UserError(f"--baseline {error}") from error
    known: dict[tuple[str, ...], Cell] = {}
    for cell in candidates:
        known.setdefault(_place(cell, shared), cell)
    return [known.get(_place(cell, shared)) for cell in cells]


def _place(cell: Cell, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(canonical(cell.value(key)) for key in keys)
