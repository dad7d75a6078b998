"""The files of conf/, as Hydra reads them; of headsweep nothing is imported."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult

CONF = str(Path(__file__).parents[1] / "conf")

_read = FileConfigSource.load_config
_read_once = cache(lambda folder, file: _read(FileConfigSource("test", f"file://{folder}"), file))


def _load_config(self: FileConfigSource, config_path: str) -> ConfigResult:
    return deepcopy(_read_once(self.path, config_path)) if self.path == CONF else _read(self, config_path)


def read_project_files_once() -> None:
    """Let Hydra parse them once a process; a composition takes twenty, and they do not change meanwhile."""
    FileConfigSource.load_config = _load_config
