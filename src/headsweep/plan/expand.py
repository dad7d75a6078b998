"""From the cells of a grid to their configurations: the one expansion of every command that takes overrides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from headsweep.config import RunConfig
from headsweep.config.auto_batch_size import KEY, Fit, cell_with_size, is_auto
from headsweep.config.composition import one_line
from headsweep.config.study.axes import shown
from headsweep.config.study.conditional import with_conditions
from headsweep.config.study.exclusions import left_out
from headsweep.config.study.expansion import GridRequest
from headsweep.config.study.grid import Cell, Grid
from headsweep.config.study.language import Study
from headsweep.config.study.points import Point
from headsweep.errors import UserError
from headsweep.plan.design import Declared
from headsweep.plan.lookup import Lookup, refusal
from headsweep.plan.same_runs import check_shared, repetitions

T = TypeVar("T")


@dataclass(frozen=True)
class Expansion:
    """The cells of a grid, each composed and typed."""

    study: Study
    points: Sequence[Point]
    cells: Sequence[Cell | Exception | None]  # or why it cannot be composed, or None where it is left out
    outcomes: Sequence[RunConfig | Exception | None]  # or why it is not valid

    @property
    def declared(self) -> Declared:
        """Where in the study each of the valid cells comes from."""
        found = [point for point, run in zip(self.points, self.outcomes, strict=True) if isinstance(run, RunConfig)]
        return Declared(self.study, found)

    @property
    def found(self) -> list[RunConfig]:
        """The configurations of the valid cells."""
        return [run for run in self.outcomes if isinstance(run, RunConfig)]

    @property
    def mistakes(self) -> list[tuple[str, str]]:
        """Name, by the overrides that not all cells have, and mistake of each cell that is not valid."""
        overrides = [point.overrides for point in self.points]
        common = set(overrides[0]).intersection(*overrides)
        return [
            (" ".join(shown(word) for word in words if word not in common) or "the only cell", one_line(outcome))
            for words, outcome in zip(overrides, self.outcomes, strict=True)
            if isinstance(outcome, Exception)
        ]

    def runs(self) -> list[RunConfig]:
        """Return the configurations of all cells but those left out. Raises UserError if one is not valid."""
        if bad := self.mistakes:
            raise refusal(bad, len(bad) + len(self.found))
        return self.found

    def by_cell(self, values: Sequence[T]) -> list[T | None]:
        """Return the values of the runs by cell, None where it was left out."""
        left = iter(values)
        return [None if outcome is None else next(left) for outcome in self.outcomes]


def expand(request: GridRequest, fit: Fit, lookup: Lookup, say: Callable[[str], object] = print) -> Expansion:
    """Compose and type each cell of a grid.

    Args:
        request: the grid.
        fit: returns what batch_size=auto stands for.
        lookup: locates the data for `fit`.
        say: prints a line about cells that are left out or repeated.

    Raises:
        UserError: an exclusion or a condition is wrong, two variants are the same run, cells differ in a key that they
            must share, or `fit` finds no batch size.
    """
    grid = Grid(request.compose)
    points = with_conditions(request.points, lambda words: _attempt(grid.cell, words))
    cells: list[Any] = [_attempt(grid.cell, point.overrides) for point in points]
    composed = [at for at, cell in enumerate(cells) if isinstance(cell, Cell)]
    absent = left_out([cells[at] for at in composed], request.exclusions) if composed else []
    for at, is_absent in zip(composed, absent, strict=True):
        cells[at] = None if is_absent else cells[at]
    if any(absent):
        say(f"{sum(absent)} of {len(cells)} cells left out (hydra.launcher.exclude)")
    study = request.points.study
    if is_auto([cell.select(KEY, None) for cell in cells if isinstance(cell, Cell)]):
        trial = _typed(study, points, [_resized(cell, grid, None) for cell in cells])
        size = fit(lookup.resolved(trial.runs()))
        cells = [_resized(cell, grid, size) for cell in cells]
    expansion = _typed(study, points, cells)
    check_shared(expansion.found)
    for line in repetitions(points, expansion.outcomes, request.exclusions.axes):
        say(line)
    return expansion


def _typed(study: Study, points: Sequence[Point], cells: Sequence[Any]) -> Expansion:
    outcomes = [_attempt(cell.parse) if isinstance(cell, Cell) else cell for cell in cells]
    return Expansion(study, points, cells, outcomes)


def _resized(cell: Any, grid: Grid, size: int | None) -> Any:
    return cell_with_size(cell, grid, size) if isinstance(cell, Cell) else cell


def _attempt(make: Callable[..., T], *arguments: Any) -> T | Exception:
    try:
        return make(*arguments)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return error
