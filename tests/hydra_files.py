"""The files of conf/, as Hydra reads them; of headsweep nothing is imported."""

import pickle
from pathlib import Path

from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult, ConfigSource

FOLDERS = [str(Path(__file__).parents[1] / name) for name in ("conf", "sweeps")]
_pickled: dict[tuple[str, str, str], bytes] = {}  # five times as fast to copy as by deepcopy


def read_project_files_once() -> None:
    """Let Hydra parse them once a process; a composition takes twenty, and they do not change meanwhile.

    Hydra executes the module of its source of files anew when it looks for plugins, so the class is known only then.
    """
    register = SourcesRegistry.register

    def register_cached(registry: SourcesRegistry, source: type[ConfigSource]) -> None:
        if source.scheme() == "file":
            _cache_files(source)
        register(registry, source)

    SourcesRegistry.register = register_cached


def _cache_files(source: type[ConfigSource]) -> None:
    read = source.load_config

    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        if self.path not in FOLDERS:
            return read(self, config_path)
        key = self.provider, self.path, config_path
        if key not in _pickled:
            _pickled[key] = pickle.dumps(read(self, config_path))
        return pickle.loads(_pickled[key])

    source.load_config = load_config
