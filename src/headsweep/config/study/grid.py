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
from headsweep.config.parsing import build, check_texts, copier, is_converted, parse, typed
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
        return self._base.with_values(self._values) if self._base else self._compose(self.overrides)


class Grid:
    """Makes the cells of one grid; `compose` gives the configuration of a list of overrides."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._bases: dict[tuple[str, ...], _Base | None] = {}

    def cell(self, overrides: Sequence[str]) -> Cell:
        """Return the cell with these overrides. Raises what Hydra raises when it cannot be composed."""
        read = {text: _plain(text) for text in overrides}
        values = dict(pair for pair in read.values() if pair)
        others = tuple(text for text, pair in read.items() if not pair)
        if others not in self._bases:
            self._bases[others] = self._base(others)
        base = self._bases[others]
        fits = base is not None and base.has(frozenset(values))
        return Cell(overrides, self._compose, base if fits else None, values if fits else {})

    def _base(self, others: Sequence[str]) -> _Base | None:
        try:
            return _Base(self._compose(others))
        except (HydraException, OmegaConfBaseException, _Unfit):
            return None


class _Unfit(Exception):  # noqa: N818 - not an error
    """This configuration cannot be shared by cells."""


class _Base:
    """What cells share that differ in plain values alone."""

    def __init__(self, config: DictConfig) -> None:
        if _refers(config):
            raise _Unfit
        self.config = config
        self._has: dict[frozenset[str], bool] = {}
        self._typed: dict[frozenset[str], DictConfig] = {}

    def has(self, keys: frozenset[str]) -> bool:
        """Return whether each key exists and takes a value."""
        if keys not in self._has:
            self._has[keys] = all(_is_leaf(self.config, key) for key in keys)
        return self._has[keys]

    def parse(self, values: Mapping[str, Any]) -> RunConfig:
        """Return the checked configuration with `values`. Raises OmegaConfBaseException for a value of a wrong type."""
        # All cells on a copy set the same keys, so none keeps a value of another cell.
        keys = frozenset(values)
        if keys not in self._typed:
            self._typed[keys] = self._copy_typed()
        typed_values = self._typed[keys]
        for key, value in values.items():
            OmegaConf.update(typed_values, key, value, merge=False)
            if is_converted(OmegaConf.select(typed_values, key), value):
                raise _Unfit
        return build(typed_values, self.config)

    def with_values(self, values: Mapping[str, Any]) -> DictConfig:
        """Return the configuration with `values` as Hydra composes it."""
        config = self._copy()
        for key, value in values.items():
            OmegaConf.update(config, key, value, merge=False)
        return config

    @cached_property
    def _copy(self) -> Callable[[], DictConfig]:
        return copier(self.config)

    @cached_property
    def _copy_typed(self) -> Callable[[], DictConfig]:
        try:
            values = typed(self.config)
            check_texts(values, self.config)  # of the overrides that all cells share, such as those of paths
        except ConfigError as error:  # the wrong value may be one that the cells set
            raise _Unfit from error
        return copier(values)


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
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    shared = {key: value for key, value in plain.items() if key in _KEYS and key != "paths"}
    return "${" in str(shared).replace("${paths.", "")
