"""Find the cell that each cell is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.config.values import canonical
from headsweep.errors import UserError
from headsweep.report.read.axes import group_of
from headsweep.report.read.cells import VARIANT, Cell
from headsweep.report.read.select import select_cells, spelled
from headsweep.tracking.design import Design

Baseline = Mapping[str, str]  # dotted key -> value


def baselines(
    cells: Sequence[Cell], axes: Sequence[str], baseline: Baseline, design: Design | None = None
) -> list[Cell | None]:
    """For each cell return the one that has the baseline's values and otherwise agrees with it; None if there is none.

    Where the head may differ, its options need not agree: they follow from the head. Where the variant may differ, so
    may all keys that variants set. Of several candidates the first is taken.

    Args:
        cells: in the order of the plan.
        axes: the keys beside head and heads that distinguish cells.
        baseline: empty means the baseline variant of the study; without variants, the head of the first cell.
        design: of the study.

    Raises:
        UserError: no cell has the given values.
    """
    values = baseline or default_baseline(cells, design)
    differing = _differing(values, design)
    shared = [key for key in ("head", "heads", *axes) if group_of(key) not in differing]
    if "head" in differing:
        shared = [key for key in shared if not key.startswith("head.")]
    try:
        candidates = select_cells(cells, values)
    except UserError as error:
        if not baseline:  # the runs of the baseline variant are missing
            return [None] * len(cells)
        raise UserError(f"--baseline {error}") from error
    known: dict[tuple[str, ...], Cell] = {}
    for cell in candidates:
        known.setdefault(_values(cell, shared), cell)
    return [known.get(_values(cell, shared)) for cell in cells]


def default_baseline(cells: Sequence[Cell], design: Design | None) -> Baseline:
    """Return the baseline variant of the study; the head of the first cell where there are no variants."""
    if design and design.baseline is not None:
        return {VARIANT: design.baseline}
    return {"head": cells[0].head}


def name_of_baseline(
    cells: Sequence[Cell], axes: Sequence[str], baseline: Baseline, against: Sequence[Cell | None], design: Design
) -> str:
    """Return what the rows are compared with, and the options taken where several cells have that head.

    Args:
        cells, axes, baseline, design: as for `baselines`.
        against: what it returned.
    """
    values = baseline or default_baseline(cells, design)
    taken = [base for base in against if base]
    options: list[str] = []
    if taken and "head" in _differing(values, design):
        candidates = select_cells(cells, values)
        options = [axis for axis in axes if axis.startswith("head.") and axis not in values]
        options = [axis for axis in options if len({_values(cell, [axis]) for cell in candidates}) > 1]
    named = (spelled({**values, **{axis: base.value(axis) for axis in options}}) for base in taken)
    same_count = " with the same number of heads" * (not baseline and "head" in values)
    return (" or ".join(dict.fromkeys(named)) or spelled(values)) + same_count


def _differing(values: Baseline, design: Design | None) -> set[str]:
    """Return in which keys, or groups, a cell may differ from its baseline."""
    return {group_of(key) for key in (*values, *(design.variant_keys if design and VARIANT in values else ()))}


def _values(cell: Cell, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(canonical(cell.value(key)) for key in keys)
