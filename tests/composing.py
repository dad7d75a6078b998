"""What many tests need: a composed configuration, and those of a grid."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult

from headsweep.config import PROJECT_ROOT, RunConfig, parse
from headsweep.config.expansion import read_grid
from headsweep.plan.expand import expand
from headsweep.plan.plan import Lookup


def expand_grid(*arguments: str) -> list[RunConfig]:
    """The configurations of `python src/train.py -m ARGUMENTS`, where Hydra is initialized."""
    request, _ = read_grid(arguments)
    return expand(request, fit=lambda runs: 64, lookup=Lookup(), say=lambda line: None).runs()


OUTPUT = "paths.output="
CONF = str(PROJECT_ROOT / "conf")

_read = FileConfigSource.load_config
_read_once = cache(lambda folder, file: _read(FileConfigSource("test", f"file://{folder}"), file))


def _load_config(self: FileConfigSource, config_path: str) -> ConfigResult:
    return deepcopy(_read_once(self.path, config_path)) if self.path == CONF else _read(self, config_path)


def read_project_files_once() -> None:
    """Let Hydra parse them once a process; a composition takes twenty, and they do not change meanwhile."""
    FileConfigSource.load_config = _load_config


def compose_run(*overrides: str) -> RunConfig:
    """The configuration of `python src/train.py OVERRIDES`, composed once for all output folders."""
    folders = [word.removeprefix(OUTPUT) for word in overrides if word.startswith(f"{OUTPUT}/")]
    run = deepcopy(_composed(tuple(word for word in overrides if not word.startswith(f"{OUTPUT}/"))))
    for folder in folders:
        run.paths.output = str(Path(folder).resolve())
    return run


@cache
def _composed(overrides: tuple[str, ...]) -> RunConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return parse(compose("train", overrides=list(overrides)))
