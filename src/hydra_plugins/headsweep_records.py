"""Heads and backbones of packages, and heads in plain files, as choices of Hydra's groups."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from headsweep.config.records import choices

SCHEME = "headsweep"


class RecordSearchPath(SearchPathPlugin):
    """Adds the folders `conf` of packages, then what their records alone say: a YAML file comes first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in choices.folders():
            search_path.append(f"package {folder.parent.name}", f"file://{folder}")
        search_path.append("records", f"{SCHEME}://records")


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
