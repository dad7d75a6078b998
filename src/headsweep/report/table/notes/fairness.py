"""Flag rows that do not match their baseline in size, compute, training or tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headsweep.config import BackboneMode
from headsweep.report.read.cells import Cell
from headsweep.report.table.columns import human
from headsweep.report.table.hyperparameters import compared_values
from headsweep.text import plural

TOLERANCE = 0.1  # largest relative difference from the baseline that is not flagged

_MEANING = {
    "params": "trained parameters",
    "head params": "parameters of the head, which alone are trained with a frozen backbone",
    "FLOPs": "FLOPs of one image's forward pass",
    "epochs": "epochs trained",
    "steps": "optimizer steps for the same epochs",
    "tuning": "settings tried with the same head, number of heads, variant, model and data",
}


@dataclass(frozen=True)
class Mismatch:
    """One quantity in which a row does not match its baseline."""

    what: str  # params, head params, FLOPs, epochs, steps or tuning
    value: float
    baseline: float

    def __str__(self) -> str:
        """The flag in a table."""
        if self.what == "tuning":  # counts so small that a percentage hides them
            return f"tuning {self.value:g} to {self.baseline:g}"
        return human(f"{self.what} {self.value / self.baseline - 1:+.0%}".replace("%", " %"))


def mismatches(
    cells: Sequence[Cell],
    against: Sequence[Cell | None],
    axes: Sequence[str] = (),
    tried: Sequence[Cell] = (),
    nearest: Sequence[Cell | None] = (),
    tolerance: float = TOLERANCE,
) -> list[tuple[Mismatch, ...]]:
    """For each cell return the quantities that differ from its baseline's by more than `tolerance`.

    Args:
        cells: those of a table.
        against: for each cell its baseline, as `baselines` returns them; None is compared with nothing.
        axes: the keys beside head and heads that distinguish cells.
        tried: all cells, over which tuning is counted; by default those of the table.
        nearest: for each cell its baseline at any setting, with which tuning is compared; by default `against`.
        tolerance: relative to the baseline. Quantities that are not known of both cells are not compared.
    """
    counts = Counter(compared_values(cell, axes) for cell in tried or cells)

    def differing(cell: Cell, base: Cell | None, near: Cell | None) -> Iterator[Mismatch]:
        if base:
            yield from _mismatches(_quantities(cell), _quantities(base), tolerance)
        if near:
            of_cell, of_base = ({"tuning": float(counts[compared_values(it, axes)])} for it in (cell, near))
            yield from _mismatches(of_cell, of_base, tolerance)

    return [tuple(differing(*group)) for group in zip(cells, against, nearest or against, strict=True)]


def footnotes(found: Sequence[Sequence[Mismatch]], tolerance: float = TOLERANCE) -> Iterator[str]:
    """Explain the flags, if there are any."""
    kinds = {mismatch.what for of_row in found for mismatch in of_row}
    if not kinds:
        return
    rows = sum(map(bool, found))
    meanings = "; ".join(f"{what}: {_MEANING[what]}" for what in _MEANING if what in kinds)
    yield (
        f"MISMATCHED: {plural(rows, 'row')} with a deviation of more than {100 * tolerance:g} % from the baseline "
        f"({meanings}), which may explain a difference in accuracy as well as the head does."
    )


def _mismatches(values: Mapping[str, float], baseline: Mapping[str, float], tolerance: float) -> Iterator[Mismatch]:
    both = [what for what in _MEANING if values.get(what) and baseline.get(what)]
    differing = [what for what in both if abs(values[what] - baseline[what]) > tolerance * baseline[what]]
    for what in differing:
        if what != "steps" or "epochs" not in differing:  # more epochs are more steps
            yield Mismatch(what, values[what], baseline[what])


def _quantities(cell: Cell) -> dict[str, float]:
    cost = cell.record.cost
    results = [run.result for run in cell.finished if run.result is not None]
    size = {"params": cost.get("parameters", 0)}
    if BackboneMode(cell.value("backbone") or BackboneMode.train.value).is_frozen:  # older records lack the key
        size = {"head params": cost.get("head_parameters", 0)}
    return {
        **size,
        "FLOPs": cost.get("flops", 0),
        "epochs": max((result.epochs for result in results), default=0),
        "steps": max((result.steps for result in results), default=0),
    }
