"""Rows that are no fair match for their reference: another size, cost, training or tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headsweep.config.values import canonical
from headsweep.report.read.cells import Cell
from headsweep.report.table.columns import human

SHARE = 0.1  # of the reference's value, up to which a difference is not worth a flag

_MEANING = {
    "params": "trained parameters",
    "FLOPs": "FLOPs of one image's forward pass",
    "epochs": "epochs trained",
    "steps": "optimizer steps of as many epochs",
    "tuning": "configurations tried of that head with as many heads on that model and data set",
}


@dataclass(frozen=True)
class Imbalance:
    """One quantity in which a row is no match for its reference."""

    what: str  # params, FLOPs, epochs, steps or tuning
    got: float
    reference: float

    def __str__(self) -> str:
        """A flag for a table."""
        if self.what == "tuning":  # counts so small that a percentage hides them
            return f"tuning {self.got:g} to {self.reference:g}"
        return human(f"{self.what} {self.got / self.reference - 1:+.0%}".replace("%", " %"))


def unfair(cells: Sequence[Cell], against: Sequence[Cell | None], share: float = SHARE) -> list[tuple[Imbalance, ...]]:
    """For each cell, in what it differs from its reference by more than `share` of the reference's value.

    Args:
        cells: all of a table, since tuning is counted in them.
        against: for each the cell that it is compared with, as `references` gives them; None is compared with none.
        share: up to which a difference is fair. What is not known of both is not compared.
    """
    tried = Counter(map(_question, cells))
    return [
        () if reference is None else tuple(_imbalances(_quantities(cell, tried), _quantities(reference, tried), share))
        for cell, reference in zip(cells, against, strict=True)
    ]


def footnotes(found: Sequence[Sequence[Imbalance]], share: float = SHARE) -> Iterator[str]:
    """What the flags mean, if there are any."""
    kinds = {imbalance.what for imbalances in found for imbalance in imbalances}
    if not kinds:
        return
    uneven = sum(map(bool, found))
    meanings = "; ".join(f"{what}: {_MEANING[what]}" for what in _MEANING if what in kinds)
    rows = f"{uneven} row{'s differ' if uneven > 1 else ' differs'}"
    yield (
        f"NOT MATCHED: {rows} from the reference by more than {share:.0%}".replace("%", " %")
        + f" ({meanings}). That may be the reason for a better number as well as the head."
    )


def _imbalances(got: Mapping[str, float], reference: Mapping[str, float], share: float) -> Iterator[Imbalance]:
    both = [what for what in _MEANING if got.get(what) and reference.get(what)]
    uneven = [what for what in both if abs(got[what] - reference[what]) > share * reference[what]]
    for what in uneven:
        if what != "steps" or "epochs" not in uneven:  # else it says the same twice
            yield Imbalance(what, got[what], reference[what])


def _quantities(cell: Cell, tried: Counter[tuple[str, ...]]) -> dict[str, float]:
    cost = cell.record.cost
    results = [run.result for run in cell.finished if run.result is not None]
    return {
        "params": cost.get("parameters", 0),
        "FLOPs": cost.get("flops", 0),
        "epochs": max((result.epochs for result in results), default=0),
        "steps": max((result.steps for result in results), default=0),
        "tuning": tried[_question(cell)],
    }


def _question(cell: Cell) -> tuple[str, ...]:
    """What a study asks about; cells that agree in it differ in how they were tuned."""
    return tuple(canonical(cell.value(key)) for key in ("head", "heads", "model", "dataset"))
