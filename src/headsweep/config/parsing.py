"""Convert a composed DictConfig to a checked `RunConfig`, once: all other code uses the dataclasses."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headsweep.config.checks import is_one_line
from headsweep.config.omegaconf_errors import as_config_error
from headsweep.config.records.head import HEADS, HeadConfig
from headsweep.config.records.head_file import spec_in
from headsweep.config.records.model import BACKBONES, ModelConfig
from headsweep.config.records.registry import Registry
from headsweep.config.schema import RunConfig
from headsweep.errors import ConfigError
from headsweep.folders import TRAIN, default_data, default_output
from headsweep.text import message_of

for name, resolver in {
    "default_output": lambda: str(default_output()),
    "default_data": lambda: str(default_data()),
    "train_command": lambda: " ".join(TRAIN),
}.items():
    OmegaConf.register_new_resolver(name, resolver, replace=True)


def parse(config: DictConfig, start: str = "") -> RunConfig:
    """Convert a composed configuration to a checked `RunConfig`; relative folders are resolved from `start`.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type, or two values exclude each other.
    """
    values = typed(config)
    run = build(values, config, start)
    check_texts(values, config)  # last: keys with a format of their own have better messages
    return run


def typed(config: DictConfig) -> DictConfig:
    """Return the configuration with the types of the schema, before the rules between keys are checked.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type.
    """
    own = [str(key) for key in config if key != "hydra"]
    plain = config if len(own) == len(config) else OmegaConf.masked_copy(config, own)
    head, model = _head_options(config), _chosen(config, "model.family", "model.family", BACKBONES)
    sections = frozenset(key for key in own if OmegaConf.is_dict(config._get_node(key)))
    values = _empty(head, model, sections)()  # type: ignore[arg-type]  # mypy asks whether instances can be hashed
    _check_values(plain)
    try:
        values.merge_with(plain)
    except OmegaConfBaseException as error:
        raise as_config_error(error, config) from error
    return values


def build(values: DictConfig, config: DictConfig, start: str = "") -> RunConfig:
    """Build the dataclasses of typed `values`; error messages take the given value from `config`.

    Raises:
        ConfigError: a value is missing, or two values exclude each other.
    """
    try:
        run = OmegaConf.to_object(values)
    except OmegaConfBaseException as error:
        raise as_config_error(error, config) from error
    assert isinstance(run, RunConfig)
    for key in ("paths.data", "paths.output", "paths.cache", "dataset.root", "model.checkpoint"):
        section, name = key.split(".")
        given = getattr(getattr(run, section), name)
        if given is not None:
            setattr(getattr(run, section), name, _absolute(key, given, start))
    return run


def _absolute(key: str, given: str, start: str) -> str:
    """Return the absolute path of a folder or file. Raises ConfigError if the path cannot be resolved."""
    try:
        return str((start / Path(given).expanduser()).resolve())
    except (RuntimeError, OSError) as error:  # an unknown user; a loop of links
        raise ConfigError(key, given, f"expected a path, found none ({error})") from error


@cache
def _empty(head: type[HeadConfig], model: type[ModelConfig], sections: frozenset[str]) -> Callable[[], DictConfig]:
    """Return a function that makes a run's schema to be filled in, for thousands of runs of a sweep.

    Args:
        head: the options of the head.
        model: the options of the model.
        sections: those that will be given, whose keys OmegaConf would make anew in each merge.
    """
    schema = OmegaConf.structured(RunConfig)
    schema.head = _schema_of("head", head)
    schema.model = _schema_of("model.family", model)
    types = get_type_hints(RunConfig)
    for section in sections.intersection(types):
        if OmegaConf.is_missing(schema, section) and is_dataclass(types[section]):
            schema[section] = types[section]
    return copier(schema)


def copier(config: DictConfig) -> Callable[[], DictConfig]:
    """Return a function that makes copies of a configuration, five times as fast as `deepcopy`."""
    try:
        return partial(pickle.loads, pickle.dumps(config))
    except (pickle.PicklingError, AttributeError, TypeError):  # e.g. options whose class is not found in its module
        return partial(copy.deepcopy, config)


def _schema_of(key: str, options: type) -> DictConfig:
    """Return the schema of a dataclass. Raises ConfigError if a field has a type that OmegaConf does not have."""
    try:
        return OmegaConf.structured(options)
    except (OmegaConfBaseException, TypeError, ValueError, NameError) as error:
        reason = message_of(error)
        expected = "expected options of the types int, float, bool, str, Enum, list and dict"
        raise ConfigError(key, options.__name__, f"{expected} ({reason})") from error


def _head_options(config: DictConfig) -> type[HeadConfig]:
    """Return the schema of the head, which may be in a file."""
    file, name = (OmegaConf.select(config, f"head.{key}") for key in ("file", "name"))
    return spec_in(str(file), str(name)).options if file else _chosen(config, "head.name", "head", HEADS)


def _chosen(config: DictConfig, key: str, shown: str, known: Registry[Any]) -> Any:
    """Return the schema that the value of `key` names."""
    section = key.partition(".")[0]
    if isinstance(text := OmegaConf.select(config, section), str):
        raise ConfigError(section, text, f"expected keys; give a choice in `defaults` (- override /{section}: {text})")
    name = OmegaConf.select(config, key)
    if name not in known:
        raise ConfigError(shown, name, f"unknown {shown.replace('.', ' ')}; known: {', '.join(sorted(known))}")
    return known[name].options


def is_converted(text: object, given: object) -> bool:
    """Return whether a float or a boolean was converted to text, which may differ from what was written (7e10)."""
    return isinstance(text, str) and isinstance(given, float | bool)


def check_texts(values: DictConfig, given: Mapping[Any, Any], prefix: str = "") -> None:
    """Raise ConfigError for a number or boolean given where a text is expected."""
    for key, value in given.items():
        if not isinstance(value, Mapping | float | bool) or key not in values:
            continue
        if isinstance(value, DictConfig):
            value = OmegaConf.to_container(value, resolve=True)  # OmegaConf takes 10 us for each value that it reads
        held, name = values[key], prefix + str(key)
        if isinstance(value, dict):
            if isinstance(held, DictConfig):
                check_texts(held, value, f"{name}.")
        elif is_converted(held, value):
            kind = "a boolean" if isinstance(value, bool) else "a number"
            raise ConfigError(name, value, f"expected a text, found {kind}; quote it, e.g. \"{name}='TEXT'\"")


def _check_values(section: Mapping[Any, Any], prefix: str = "") -> None:
    """Raise ConfigError for NaN, infinity and text of several lines, before a rule between keys compares them."""
    for key, value in section.items():
        if isinstance(value, DictConfig):
            _check_values(value, f"{prefix}{key}.")
        for item in value if isinstance(value, ListConfig) else [value]:
            if isinstance(item, float) and not math.isfinite(item):
                raise ConfigError(prefix + str(key), value, "expected a finite number")
            if isinstance(item, str) and not is_one_line(item):
                raise ConfigError(prefix + str(key), value, "expected a text of one line, without control characters")
