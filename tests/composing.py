"""What many tests need: a composed configuration, and those of a grid."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir

from headsweep.config import PROJECT_ROOT, RunConfig, parse
from headsweep.config.command_line import spell_out
from headsweep.config.study.expansion import read_grid
from headsweep.plan.expand import Expansion, expand
from headsweep.plan.plan import Lookup

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
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        return parse(compose("train", overrides=list(overrides)))
