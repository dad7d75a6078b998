"""The choices of a screening by successive halving, stored in the folder of its sweep; a cell is named by its group."""

from __future__ import annotations

from dataclasses import dataclass

from headsweep.tracking.metrics_log import MOST
from headsweep.tracking.typed_files import require, require_share


@dataclass(frozen=True)
class Round:
    """One choice among the remaining cells."""

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

    def check(self) -> None:
        """Raise ValueError for values out of range."""
        for key, least in (("eta", 2), ("epochs", 1), ("cells", 1)):
            require(key, getattr(self, key), least <= getattr(self, key) <= MOST, f"an integer in [{least}, {MOST}]")
        for choice in self.rounds:
            require("rounds.until", choice.until, 1 <= choice.until <= self.epochs, f"an epoch in [1, {self.epochs}]")
            require("rounds.went_on", choice.went_on, choice.scores.keys() >= set(choice.went_on), "cells with a score")
            for cell, score in choice.scores.items():
                require_share(f"rounds.scores.{cell}", 0.0 if score is None else score)

    def last_round(self, cell: str) -> Round | None:
        """Return the round that screened a cell out; None if none did. A cell with a failed run has no score."""
        return next((it for it in self.rounds if cell in it.scores and cell not in it.went_on), None)

    def screened_out(self, cell: str) -> str | None:
        """Return when a cell was screened out, e.g. "3 of 20 epochs"; None if it was not."""
        last = self.last_round(cell)
        return f"{last.until} of {self.epochs} epochs" if last else None
