"""`batch_size=auto`: replaced by a number before a configuration is typed, as it is part of a run's identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omegaconf import DictConfig, OmegaConf

from headsweep.config.schema import RunConfig
from headsweep.config.study.grid import Cell, Grid
from headsweep.errors import ConfigError

KEY = "batch_size"
AUTO = "auto"

Fit = Callable[[Sequence[RunConfig]], int]  # returns the batch size that fits runs, whatever batch size they have


def is_auto(given: Sequence[object]) -> bool:
    """Return whether the composed batch sizes of one command are `auto`.

    Raises:
        ConfigError: some are, and others are numbers.
    """
    if AUTO not in given:
        return False
    if set(given) != {AUTO}:
        words = ",".join(dict.fromkeys(map(str, given)))
        raise ConfigError(KEY, words, "expected auto alone, which is one number for all cells of a grid, or numbers")
    return True


def with_size(config: DictConfig, size: int | None) -> DictConfig:
    """Return a composed configuration with a batch size; None: any that its other keys allow."""
    sized = OmegaConf.merge(config, {KEY: size or _any(OmegaConf.select(config, "accumulation"))})
    assert isinstance(sized, DictConfig)
    return sized


def cell_with_size(cell: Cell, grid: Grid, size: int | None) -> Cell:
    """Return the same for a cell of a grid."""
    size = size or _any(cell.select("accumulation", 1))
    return grid.cell([*cell.overrides, f"{KEY}={size}"])  # the later of two overrides counts


def _any(accumulation: object) -> int:
    """Return two images a micro-batch, which heads with batch normalization need."""
    return 2 * accumulation if isinstance(accumulation, int) else 2
