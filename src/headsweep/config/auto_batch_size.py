"""`batch_size=auto`: a word that a number takes the place of before a configuration is typed.

The number is part of a run's identity, so nothing below the door hears of the word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omegaconf import DictConfig, OmegaConf

from headsweep.config.grid import Cell, Grid
from headsweep.config.schema import RunConfig
from headsweep.errors import ConfigError

KEY = "batch_size"
AUTO = "auto"

Fit = Callable[[Sequence[RunConfig]], int]  # the batch size that fits runs; the one that they have counts for nothing


def is_wanted(given: Sequence[object]) -> bool:
    """Is it what the configurations of one command ask for, given their batch sizes as they were composed?

    Raises:
        ConfigError: some ask for it, and others give a number.
    """
    if AUTO not in given:
        return False
    if set(given) != {AUTO}:
        words = ",".join(dict.fromkeys(map(str, given)))
        raise ConfigError(KEY, words, "auto is one number for all cells of a grid; want auto alone, or numbers")
    return True


def with_size(config: DictConfig, size: int | None) -> DictConfig:
    """A composed configuration with a batch size; None: any that its other keys can live with."""
    sized = OmegaConf.merge(config, {KEY: size or _any(OmegaConf.select(config, "accumulation"))})
    assert isinstance(sized, DictConfig)
    return sized


def cell_with_size(cell: Cell, grid: Grid, size: int | None) -> Cell:
    """The same for a cell of a grid."""
    size = size or _any(cell.select("accumulation", 1))
    return grid.cell([*cell.overrides, f"{KEY}={size}"])  # of two overrides the later counts


def _any(accumulation: object) -> int:
    """Heads that normalise want two images a micro-batch."""
    return 2 * accumulation if isinstance(accumulation, int) else 2
