"""What Hydra finds beside conf/: files of packages and of the user, records of heads and backbones, heads in files."""

from __future__ import annotations

from hydra._internal.core_plugins import file_config_source
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from headsweep import folders
from headsweep.config.records import choices

SCHEME = "headsweep"


class RecordSearchPath(SearchPathPlugin):
    """Adds the folders `conf` of packages, then what their records alone say, then the folders of `search_path`.

    A YAML file of a package comes before its record. `hydra.searchpath` would not do: --help does not read it.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in choices.folders():
            search_path.append(f"package {folder.parent.name}", f"file://{folder}")
        search_path.append("records", f"{SCHEME}://records")
        for path in folders.search_path():
            search_path.append("studies and own files", path)


class StudySource(file_config_source.FileConfigSource):
    """The folder `sweeps` of a folder, and nothing else in it: --help lists all groups that it finds."""

    @staticmethod
    def scheme() -> str:
        return folders.STUDIES

    def is_group(self, config_path: str) -> bool:
        return (not config_path or _is_study(config_path)) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return _is_study(config_path) and super().is_config(config_path)


def _is_study(config_path: str) -> bool:
    """Return whether a path is that of `sweeps` or of something in it, but for the published numbers of studies."""
    first, *rest = config_path.strip("/").split("/")
    return first == "sweeps" and rest[:1] != ["published"]


class RecordSource(ConfigSource):
    """The choices of `headsweep.config.records.choices` as files of their groups."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/") in choices.REGISTRIES

    def is_config(self, config_path: str) -> bool:
        group, choice = _parts(config_path)
        return group in choices.REGISTRIES and choices.values(group, choice) is not None

    def load_config(self, config_path: str) -> ConfigResult:
        values = choices.values(*_parts(config_path))
        if values is None:
            raise ConfigLoadError(f"{config_path}: no such record")
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(values), {"package": None})

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return [] if results_filter is ObjectType.GROUP else sorted(choices.names(config_path.strip("/")))


def _parts(config_path: str) -> tuple[str, str]:
    """Return group and choice; the choice may be the path of a file, which has slashes of its own."""
    group, _, choice = config_path.removesuffix(".yaml").partition("/")
    return group, choice
