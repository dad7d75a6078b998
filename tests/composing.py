"""What many tests need: a composed configuration, and those of a grid."""

import pickle
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from headsweep.config import PROJECT_ROOT, RunConfig
from headsweep.config.command_line import spell_out
from headsweep.config.study.expansion import read_grid
from headsweep.config.study.grid import Grid
from headsweep.plan.expand import Expansion, expand
from headsweep.plan.lookup import Lookup

OUTPUT = "paths.output="


def expand_study(*arguments: str, say: Callable[[str], object] = lambda line: None) -> Expansion:
    """The cells of `python src/train.py -m ARGUMENTS`, where Hydra is initialized."""
    request, _ = read_grid(spell_out(arguments))
    return expand(request, fit=lambda runs: 64, lookup=Lookup(), say=say)


def expand_grid(*arguments: str) -> list[RunConfig]:
    """The configurations of `python src/train.py -m ARGUMENTS`, where Hydra is initialized."""
    return expand_study(*arguments).runs()


def compose_run(*overrides: str) -> RunConfig:
    """The configuration of `python src/train.py OVERRIDES`, composed once for all output folders."""
    folders = [word.removeprefix(OUTPUT) for word in overrides if word.startswith(f"{OUTPUT}/")]
    run = deepcopy(_composed(tuple(word for word in overrides if not word.startswith(f"{OUTPUT}/"))))
    for folder in folders:
        run.paths.output = str(Path(folder).resolve())
    return run


@cache
def _composed(overrides: tuple[str, ...]) -> RunConfig:
    return GRID.cell(overrides).parse()


def _compose(overrides: Sequence[str]) -> DictConfig:
    return pickle.loads(_pickled(tuple(overrides)))


@cache
def _pickled(overrides: tuple[str, ...]) -> bytes:
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        return pickle.dumps(compose("train", overrides=list(overrides)))


def compose_within(name: str, overrides: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    """As `hydra.compose` where Hydra is initialized with the project's configuration, once a process."""
    return pickle.loads(_pickled_within(name, tuple(overrides), return_hydra_config))


@cache
def _pickled_within(name: str, overrides: tuple[str, ...], with_hydra: bool) -> bytes:
    return pickle.dumps(compose(name, overrides=list(overrides), return_hydra_config=with_hydra))


GRID = Grid(_compose)  # a tenth of a second less for each configuration; that it is the same, test_grid.py shows
