"""What a screening by successive halving has chosen, as it lies in its sweep's folder; a cell is known by its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Round:
    """One choice among the cells that were left."""

    until: int  # the epoch after which it was made
    scores: dict[str, float | None]  # mean val/top1 over a cell's seeds at that epoch; None: a seed has diverged
    went_on: list[str]  # in the order of the grid


@dataclass(frozen=True)
class Screening:
    """The choices so far."""

    eta: int
    epochs: int  # of a run that is trained to its end
    cells: int
    rounds: tuple[Round, ...]

    @staticmethod
    def of(content: dict[str, Any]) -> Screening:
        """From what `dataclasses.asdict` made of it."""
        return Screening(**{**content, "rounds": tuple(Round(**choice) for choice in content["rounds"])})

    def last_round(self, cell: str) -> Round | None:
        """The round that screened a cell out; None if none did. A cell with a failed run was not judged."""
        return next((it for it in self.rounds if cell in it.scores and cell not in it.went_on), None)

    def screened_out(self, cell: str) -> str | None:
        """When a cell was screened out, e.g. "3 of 20 epochs"; None if it was not."""
        last = self.last_round(cell)
        return f"{last.until} of {self.epochs} epochs" if last else None
