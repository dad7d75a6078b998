"""What many tests need: a composed configuration, and those of a grid."""

from hydra import compose, initialize_config_dir

from headsweep.config import PROJECT_ROOT, RunConfig, parse
from headsweep.config.expansion import read_grid
from headsweep.plan.expand import expand
from headsweep.plan.plan import Lookup


def expand_grid(*arguments: str) -> list[RunConfig]:
    """The configurations of `python src/train.py -m ARGUMENTS`, where Hydra is initialized."""
    request, _ = read_grid(arguments)
    return expand(request, fit=lambda runs: 64, lookup=Lookup(), say=lambda line: None).runs()


def compose_run(*overrides: str) -> RunConfig:
    """The configuration of `python src/train.py OVERRIDES`."""
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        return parse(compose("train", overrides=list(overrides)))
