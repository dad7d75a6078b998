"""Decide which cells are rows of a table, and which cell each of them is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headsweep.errors import UserError
from headsweep.report.read.axes import varying_axes
from headsweep.report.read.cells import Cell
from headsweep.report.table import hyperparameters, tuning
from headsweep.report.table.baseline import baselines
from headsweep.report.table.model import Question


@dataclass(frozen=True)
class Pairing:
    """The cells that are shown, and their baselines, each in the order of the plan."""

    axes: tuple[str, ...]  # the keys beside head and heads that distinguish cells
    tuned: tuple[str, ...]  # those of them whose value was chosen for each row
    arms: tuple[tuning.Arm, ...]  # of the cells; none if nothing is tuned
    faults: tuple[str, ...]  # why the arms may not be compared, in a sentence each
    unchosen: tuple[str, ...]  # hyper-parameters that vary although no value was chosen
    cells: tuple[Cell, ...]  # with arms, the chosen ones
    against: tuple[Cell | None, ...]  # the baseline of each cell; None if there is none
    nearest: tuple[Cell | None, ...]  # likewise, at any value of what is unchosen

    @property
    def others(self) -> tuple[str, ...]:
        """The axes that are not tuned."""
        return tuple(axis for axis in self.axes if axis not in self.tuned)

    @property
    def differences(self) -> int:
        """How many cells have a baseline, at any setting, that is another cell."""
        return sum((base or near) not in (None, cell) for cell, base, near in self.groups())

    def groups(self) -> Sequence[tuple[Cell, Cell | None, Cell | None]]:
        """Return each cell with its baseline and its nearest baseline."""
        return list(zip(self.cells, self.against, self.nearest, strict=True))

    def edges(self) -> list[tuple[str, ...]]:
        """Return for each cell at which edges of what was tried it is."""
        return [arm.edges for arm in self.arms] or [()] * len(self.cells)


def pair(cells: Sequence[Cell], question: Question) -> Pairing:
    """Choose the settings that are tuned, and find the baseline of each cell.

    Raises:
        UserError: no cell has the baseline's values, or arms were not tuned alike and `question.mark` is not set.
    """
    axes = tuple(varying_axes(cells, (*question.axes, *question.tune), question.design.variant_keys))
    arms, faults = _arms(cells, axes, question)
    shown = tuple(arm.chosen.cell for arm in arms) or tuple(cells)
    others = tuning.without(axes, question.tune) if arms else axes
    unchosen = hyperparameters.unchosen(shown, others, question.baseline, are_arms=bool(arms))
    compared = [axis for axis in others if axis not in unchosen]
    return Pairing(
        axes=axes,
        tuned=tuple(axis for axis in axes if axis not in others),
        arms=arms,
        faults=faults,
        unchosen=unchosen,
        cells=shown,
        against=tuple(baselines(shown, others, question.baseline, question.design)),
        nearest=tuple(baselines(shown, compared, question.baseline, question.design)),
    )


def _arms(
    cells: Sequence[Cell], axes: Sequence[str], question: Question
) -> tuple[tuple[tuning.Arm, ...], tuple[str, ...]]:
    """Return the arms, none if nothing can be chosen, and their faults."""
    if not question.tune:
        return (), ()
    arms = tuning.arms(cells, axes, question.tune, question.metric)
    faults = tuple(tuning.faults(arms, tuning.without(axes, question.tune), question.metric))
    if faults and not question.mark:
        raise UserError(f"{' '.join(faults)} Add --mark to show the table anyway, without a claim")
    return (arms if tuning.can_choose(cells, question.metric) else ()), faults
