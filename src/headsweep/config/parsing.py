"""The door: a composed DictConfig becomes a checked `RunConfig` once; below it nothing knows of OmegaConf."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headsweep.config.explaining import explain
from headsweep.config.head import HEADS
from headsweep.config.model import MODELS
from headsweep.config.schema import RunConfig
from headsweep.errors import ConfigError

T = TypeVar("T")
PROJECT_ROOT = Path(__file__).resolve().parents[3]
OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)


def parse(config: DictConfig) -> RunConfig:
    """Turn a composed configuration into a checked `RunConfig`.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type, or two values exclude each other.
    """
    return build(typed(config), config)


def typed(config: DictConfig) -> DictConfig:
    """The configuration with the types of the schema, whose rules between keys are not looked at yet.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type.
    """
    plain = {key: config[key] for key in config if key != "hydra"}
    schema = OmegaConf.structured(RunConfig)
    schema.head = OmegaConf.structured(_chosen(config, "head.name", "head", HEADS))
    schema.model = OmegaConf.structured(_chosen(config, "model.family", "model.family", MODELS))
    _check_finite(plain)
    try:
        merged = OmegaConf.merge(schema, plain)
    except OmegaConfBaseException as error:
        raise explain(error, config) from error
    assert isinstance(merged, DictConfig)
    return merged


def build(values: DictConfig, config: DictConfig) -> RunConfig:
    """The dataclasses of typed `values`; `config` is where an error looks up what was given.

    Raises:
        ConfigError: a value is missing, or two values exclude each other.
    """
    try:
        run = OmegaConf.to_object(values)
    except OmegaConfBaseException as error:
        raise explain(error, config) from error
    assert isinstance(run, RunConfig)
    run.paths.data, run.paths.output = (str(Path(p).expanduser().resolve()) for p in (run.paths.data, run.paths.output))
    if run.dataset.root is not None:
        run.dataset.root = str(Path(run.dataset.root).expanduser().resolve())
    if run.model.checkpoint is not None:
        run.model.checkpoint = str(Path(run.model.checkpoint).expanduser().resolve())
    return run


def _chosen(config: DictConfig, key: str, shown: str, known: Mapping[str, type[T]]) -> type[T]:
    """The schema that the value of `key` names."""
    name = OmegaConf.select(config, key)
    if name not in known:
        raise ConfigError(shown, name, f"unknown {shown.replace('.', ' ')}; known: {', '.join(sorted(known))}")
    return known[name]


def _check_finite(section: Mapping[Any, Any], prefix: str = "") -> None:
    """No number of a configuration may be NaN or infinite; said before a rule compares it with anything."""
    for key, value in section.items():
        if isinstance(value, DictConfig):
            _check_finite(value, f"{prefix}{key}.")
        for number in value if isinstance(value, ListConfig) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(prefix + str(key), value, "want a finite number")
