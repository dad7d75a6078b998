"""Compositions that differ in values alone, of which Hydra composes one: it sets the values after it has composed."""

import pickle
from collections.abc import Sequence
from functools import cache

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict


def compose_and_set(name: str, overrides: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    """As `hydra.compose` where Hydra is initialized with the project's configuration, but for the list of overrides."""
    given = dict(zip(overrides, OverridesParser.create().parse_overrides(list(overrides)), strict=True))
    values = [override for override in given.values() if _is_value(override)]
    config: DictConfig = pickle.loads(_pickled(name, tuple(word for word in given if given[word] not in values)))
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    if not return_hydra_config:
        with open_dict(config):
            del config["hydra"]
    return config


def _is_value(override: Override) -> bool:
    """Return whether Hydra sets it in what is composed; it refuses several values, and a key that chooses its files."""
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    is_choice = loader.repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)
    return not (is_choice or override.is_sweep_override() or override.key_or_group == "hydra.searchpath")


@cache
def _pickled(name: str, choices: tuple[str, ...]) -> bytes:
    return pickle.dumps(compose(name, overrides=list(choices), return_hydra_config=True))
