"""A grid's cells, composed and typed fast.

Hydra takes 0.2 s to compose a cell, and OmegaConf another 0.05 s to type it, while most cells differ in plain values
alone: `heads=4`, `seed=7`. What such cells share is composed and typed once, and each cell writes its own values into
it, which OmegaConf converts as usual. Anything else (the choice of a group, an addition, a deletion, an interpolation)
and anything that OmegaConf refuses takes the slow path, so that both paths end in the same `RunConfig` or error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache, cached_property
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headsweep.config.checks import is_one_line
from headsweep.config.parsing import build, check_texts, is_converted, parse, typed
from headsweep.config.schema import RunConfig
from headsweep.errors import ConfigError

Compose = Callable[[Sequence[str]], DictConfig]

_KEYS = get_type_hints(RunConfig)
_GROUPS = {key for key, type_ in _KEYS.items() if is_dataclass(type_)}
_CHOOSES_SCHEMA = {"head.name", "model.family"}


class Cell:
    """One point of a grid, given by its overrides."""

    def __init__(self, overrides: Sequence[str], compose: Compose, base: _Base | None, values: dict[str, Any]) -> None:
        """Compose a cell without a `base` now; raises what Hydra raises."""
        self.overrides = tuple(overrides)
        self._compose, self._base, self._values = compose, base, values
        if base is None:
            _ = self._config

    def select(self, key: str, default: object) -> Any:
        """Return the composed value of a dotted key, before types and rules are checked."""
        if key in self._values:
            return self._values[key]
        return OmegaConf.select(self._base.config if self._base else self._config, key, default=default)

    def parse(self) -> RunConfig:
        """Return the checked configuration. Raises ConfigError as `parse` does, or what Hydra raises."""
        if self._base is not None:
            try:
                return self._base.parse(self._values)
            except (OmegaConfBaseException, _Unfit):
                pass  # the slow path raises the error
        return parse(self._config)

    @cached_property
    def _config(self) -> DictConfig:
        return self._compose(self.overrides)


class Grid:
    """Makes the cells of one grid; `compose` gives the configuration of a list of overrides."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._bases: dict[tuple[tuple[str, ...], frozenset[str]], _Base | None] = {}

    def cell(self, overrides: Sequence[str]) -> Cell:
        """Return the cell with these overrides. Raises what Hydra raises when it cannot be composed."""
        read = {text: _plain(text) for text in overrides}
        values = dict(pair for pair in read.values() if pair)
        others = tuple(text for text, pair in read.items() if not pair)
        # Every cell on a base sets the same keys, so none keeps a value of another cell.
        key = others, frozenset(values)
        if key not in self._bases:
            self._bases[key] = self._base(*key)
        base = self._bases[key]
        return Cell(overrides, self._compose, base, values if base else {})

    def _base(self, others: Sequence[str], keys: frozenset[str]) -> _Base | None:
        try:
            return _Base(self._compose(others), keys)
        except (HydraException, OmegaConfBaseException, _Unfit):
            return None


class _Unfit(Exception):  # noqa: N818 - not an error
    """This configuration cannot be shared by cells."""


class _Base:
    """What cells share that differ in plain values alone."""

    def __init__(self, config: DictConfig, keys: frozenset[str]) -> None:
        self.config = config
        if not all(_is_leaf(config, key) for key in keys) or _refers(config):
            raise _Unfit

    @cached_property
    def _typed(self) -> DictConfig:
        try:
            values = typed(self.config)
            check_texts(values, self.config)  # of the overrides that all cells share, such as those of paths
            return values
        except ConfigError as error:  # the wrong value may be one that the cells set
            raise _Unfit from error

    def parse(self, values: Mapping[str, Any]) -> RunConfig:
        """Return the checked configuration with `values`. Raises OmegaConfBaseException for a value of a wrong type."""
        for key, value in values.items():
            OmegaConf.update(self._typed, key, value, merge=False)
            if is_converted(OmegaConf.select(self._typed, key), value):
                raise _Unfit
        return build(self._typed, self.config)


@cache
def _plain(text: str) -> tuple[str, Any] | None:
    """Return key and value of an override that sets a number, a text, null, true, false or a list of those."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return None  # Hydra reports it when it composes
    key, value = override.key_or_group, override.value()
    section = key.partition(".")[0]
    plain = (
        override.type is OverrideType.CHANGE
        and override.package is None
        and not override.is_sweep_override()
        and section in _KEYS
        and section != "paths"  # other keys are derived from it
        and key not in _GROUPS | _CHOOSES_SCHEMA
        and all(map(_is_plain_value, value if isinstance(value, list) else [value]))
    )
    return (key, value) if plain else None


def _is_plain_value(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return "${" not in value and value != "???" and is_one_line(value)
    return value is None or isinstance(value, bool | int)


def _is_leaf(config: DictConfig, key: str) -> bool:
    """Return whether `key` exists and is not a section or group."""
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    return isinstance(section, DictConfig) and name in section and not OmegaConf.is_dict(section._get_node(name))


def _refers(config: DictConfig) -> bool:
    """Return whether a value is derived from others that cells may set; they cannot set a plain value in `paths`."""
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [key for key in config if key in _KEYS and key != "paths"])
    )
    return "${" in str(plain).replace("${paths.", "")
