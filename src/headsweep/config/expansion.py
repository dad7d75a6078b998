"""Hydra's composition and its grids outside Hydra's command line, for what reads configurations and runs none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from headsweep.config.exclusions import Exclusions, left_out
from headsweep.config.grid import Cell, Compose, Grid
from headsweep.config.parsing import PROJECT_ROOT


@contextmanager
def composer() -> Iterator[Compose]:
    """Compose the configuration of a list of overrides, as `python src/train.py OVERRIDES` does."""
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        yield lambda overrides: compose("train", overrides=list(overrides))


def expand(arguments: Sequence[str], grid: Grid) -> list[Cell]:
    """The cells of `python src/train.py -m ARGUMENTS`, within `composer`; those that its study leaves out left out.

    Raises:
        ConfigError: every cell is left out, or an exclusion cannot be read. What Hydra raises for a wrong override.
    """
    parser = OverridesParser.create()
    given = parser.parse_overrides(list(arguments))
    fixed = [word for word, override in zip(arguments, given, strict=True) if not override.is_sweep_override()]
    hydra = compose("train", overrides=fixed, return_hydra_config=True).hydra
    axes = OmegaConf.to_container(hydra.sweeper.params or OmegaConf.create({}))
    assert isinstance(axes, dict)
    study = [f"{key!s}={values}" for key, values in axes.items()]
    overrides = parser.parse_overrides(study) + given
    (points,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    cells = [grid.cell(point) for point in points]
    out = left_out(cells, Exclusions(hydra.launcher.exclude, [*study, *arguments]))
    return [cell for cell, absent in zip(cells, out, strict=True) if not absent]
