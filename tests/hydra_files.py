"""The files of conf/ and of Hydra, as Hydra reads them; of headsweep nothing is imported."""

import pickle
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import omegaconf._utils
import omegaconf.base
from hydra._internal import defaults_list
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import InputDefault
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf.base import Metadata

FOLDERS = [str(Path(__file__).parents[1] / name) for name in ("conf", "sweeps")]
UNCHANGING = [*FOLDERS, "hydra.conf"]
_pickled: dict[tuple[str, str, str], bytes] = {}  # five times as fast to copy as by deepcopy
_is_there: dict[tuple[str, str], bool] = {}


@cache
def read_project_files_once() -> None:
    """Let Hydra parse them once a process; a composition takes twenty, and they do not change meanwhile.

    Hydra executes the modules of its sources of files anew when it looks for plugins, so the classes are known only
    then.
    """
    register = SourcesRegistry.register

    def register_cached(registry: SourcesRegistry, source: type[ConfigSource]) -> None:
        if source.scheme() in ("file", "pkg"):
            _cache_files(source)
        register(registry, source)

    SourcesRegistry.register = register_cached
    _map_interpolations_where_there_are_any()
    Metadata.__deepcopy__ = _copy_metadata
    # Interpolations are parsed whenever a node is written or read: a sixth of a composition. The trees do not change.
    omegaconf._utils.parse = omegaconf.base.parse = cache(omegaconf.base.parse)


def _cache_files(source: type[ConfigSource]) -> None:
    read, find = source.load_config, source.is_config

    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        if self.path not in UNCHANGING:
            return read(self, config_path)
        key = self.provider, self.path, config_path
        if key not in _pickled:
            _pickled[key] = pickle.dumps(read(self, config_path))
        return pickle.loads(_pickled[key])

    def is_config(self: ConfigSource, config_path: str) -> bool:
        if self.path not in UNCHANGING:
            return find(self, config_path)
        key = self.path, config_path
        if key not in _is_there:
            _is_there[key] = find(self, config_path)
        return _is_there[key]

    source.load_config, source.is_config = load_config, is_config


def _map_interpolations_where_there_are_any() -> None:
    """Let Hydra collect the known choices for those defaults lists alone that refer to one: a fifth of a composition.

    It does so for each of the twenty files.
    """
    collect = defaults_list._create_interpolation_map

    def collect_if_needed(overrides: Any, defaults: Sequence[InputDefault], self_added: bool) -> Any:
        if any(not it.is_self() and it.is_interpolation() for it in defaults):
            return collect(overrides, defaults, self_added)
        return None

    defaults_list._create_interpolation_map = collect_if_needed


def _copy_metadata(data: Metadata, memo: dict[int, object]) -> Metadata:
    """As deepcopy does, which takes a sixth of a composition for them: but for dictionaries, their values are fixed."""
    copied = object.__new__(type(data))
    resolved = deepcopy(data.resolver_cache, memo) if data.resolver_cache else defaultdict(dict)
    vars(copied).update(vars(data), flags=None if data.flags is None else {**data.flags}, resolver_cache=resolved)
    return copied
