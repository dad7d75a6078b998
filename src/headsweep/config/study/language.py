"""The study language: what `hydra.sweeper` declares beside the axes of a plain product, read and typed.

A study is one block, or with `union` several, each of which has the entries of the outer block and its own. A block is
the product of its axes, groups of zipped axes and variants, to which its conditional axes are added cell by cell.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from headsweep.config.checks import is_one_line
from headsweep.config.study_keys import KEYS, KEYS_OF_BLOCKS, SWEEPER, VARIANTS
from headsweep.errors import ConfigError

WHEN = "when"  # the key of a condition in a list of conditional axes
_GRID = "hydra_plugins.headsweep_grid_sweeper.GridSweeper"
_OF_HYDRA = ("_target_", "_recursive_", "_convert_", "max_batch_size")  # keys of `hydra.sweeper` beside the study's

Axes = Mapping[str, str]  # key of an override -> its values, as Hydra parses them


@dataclass(frozen=True)
class Conditional:
    """Axes for those cells only in which a condition holds."""

    condition: str  # e.g. head=ga heads>1
    axes: Axes


@dataclass(frozen=True)
class Block:
    """Part of a study whose cells are a product."""

    params: Axes = field(default_factory=dict)
    variants: Mapping[str, Sequence[str]] = field(default_factory=dict)  # name -> overrides
    conditional: Sequence[Conditional] = ()
    zipped: Sequence[Axes] = ()  # the axes of a group vary together


@dataclass(frozen=True)
class Study:
    """The axes of a grid, and what is declared about them."""

    blocks: Sequence[Block] = (Block(),)
    tune: Axes = field(default_factory=dict)  # axes whose value is chosen for each arm on validation images
    baseline: str | None = None  # the variant that the others are compared with; the first if there are variants
    margin: float | None = None  # equivalence margin in percentage points

    def axes(self) -> list[str]:
        """Return every axis, as overrides."""
        groups = [self.tune]
        for block in self.blocks:
            groups += [block.params, *block.zipped, *(it.axes for it in block.conditional)]
        return list(dict.fromkeys(f"{key}={values}" for axes in groups for key, values in axes.items()))


def declared(sweeper: Any) -> list[str]:
    """Return the keys of `hydra.sweeper` that declare a study.

    Raises:
        ConfigError: a key is unknown, which Hydra merges from a study's file without an error.
    """
    if not isinstance(sweeper, Mapping):
        return []
    if sweeper.get("_target_", _GRID) == _GRID:
        _check_known([str(key) for key in sweeper])
    return [key for key in KEYS if sweeper.get(key) is not None]


def _check_known(keys: Sequence[str]) -> None:
    for key in keys:
        if key not in (*KEYS, *_OF_HYDRA):
            close = difflib.get_close_matches(key, KEYS, n=1)
            meant = f"; did you mean {close[0]}?" if close else ";"
            raise ConfigError(f"{SWEEPER}.{key}", None, f"unknown key{meant} known: {', '.join(KEYS)}")


def read_study(sweeper: Any) -> Study:
    """Read `hydra.sweeper`.

    Raises:
        ConfigError: a value has a wrong type, a name is empty, or a key is unknown.
    """
    given = {key: _plain(sweeper._get_node(key)) for key in declared(sweeper)}
    outer = _block(given, SWEEPER)
    blocks = [_combined(outer, own) for own in _union(given.get("union"))] or [outer]
    variants = _variants_by_name(blocks)
    return Study(
        blocks,
        _axes(given.get("tune"), f"{SWEEPER}.tune"),
        _baseline(given.get("baseline"), list(variants)),
        _margin(given.get("margin")),
    )


def _plain(node: Any) -> Any:
    """Return a node as plain values; interpolations stay as they are written."""
    if isinstance(node, DictConfig | ListConfig):
        return OmegaConf.to_container(node, resolve=False)
    return node._value()


def _union(found: Any) -> list[Block]:
    key = f"{SWEEPER}.union"
    if found is None:
        return []
    if not isinstance(found, list):
        raise ConfigError(key, found, "expected a list of blocks, e.g. [{params: {heads: '1,4'}}]")
    return [_block(_keyed(own, f"{key}[{at}]"), f"{key}[{at}]") for at, own in enumerate(found)]


def _keyed(found: Any, key: str) -> dict[str, Any]:
    """Return the keys of a block of a union."""
    if not isinstance(found, dict) or not found:
        raise ConfigError(key, found, f"expected a block with some of {', '.join(KEYS_OF_BLOCKS)}")
    if unknown := [str(own) for own in found if own not in KEYS_OF_BLOCKS]:
        raise ConfigError(f"{key}.{unknown[0]}", None, f"unknown key of a block; known: {', '.join(KEYS_OF_BLOCKS)}")
    return found


def _combined(outer: Block, own: Block) -> Block:
    return Block(
        {**outer.params, **own.params},
        {**outer.variants, **own.variants},
        [*outer.conditional, *own.conditional],
        [*outer.zipped, *own.zipped],
    )


def _block(given: Mapping[str, Any], key: str) -> Block:
    return Block(
        _axes(given.get("params"), f"{key}.params"),
        dict(_variants(given.get("variants"), f"{key}.variants")),
        list(_conditional(given.get("conditional"), f"{key}.conditional")),
        list(_zipped(given.get("zipped"), f"{key}.zipped")),
    )


def _axes(found: Any, key: str) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(key, found, "expected axes and their values, e.g. {head: 'seqpool,ga'}")
    for axis in found:
        if not isinstance(axis, str) or not axis.strip():
            advice = "quote values that have a comma, e.g. {heads: '1,4'}"
            raise ConfigError(key, _shown(axis), f"expected the key of an axis, found something else; {advice}")
    return {axis: "null" if values is None else str(values) for axis, values in found.items()}


def _variants(found: Any, key: str) -> Iterator[tuple[str, list[str]]]:
    """Yield name and overrides of each variant."""
    if found is None:
        return
    if not isinstance(found, dict):
        expected = "expected names and lists of overrides, e.g. {paper: [], EMA: [ema_decay=0.999]}"
        raise ConfigError(key, found, expected)
    for name, overrides in found.items():
        if not isinstance(name, str) or not name.strip() or not is_one_line(name):
            raise ConfigError(key, _shown(name), "expected the name of a variant, a text of one line; quote it")
        texts = [] if overrides is None else overrides
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"{key}.{name}", overrides, "expected a list of overrides, e.g. [ema_decay=0.999]")
        yield name, texts


def _conditional(found: Any, key: str) -> Iterator[Conditional]:
    """Yield conditional axes, given as condition -> axes or, for Hydra's command line, as a list with `when`."""
    if found is None:
        return
    if isinstance(found, dict):
        pairs = list(found.items())
    elif isinstance(found, list) and all(isinstance(own, dict) and WHEN in own for own in found):
        pairs = [(own[WHEN], {axis: values for axis, values in own.items() if axis != WHEN}) for own in found]
    else:
        expected = "expected conditions and axes, e.g. {head=ga: {head.gram_dim: '32,64'}}"
        raise ConfigError(key, found, f"{expected}, or a list [{{{WHEN}: 'head=ga', head.gram_dim: '32,64'}}]")
    for condition, axes in pairs:
        if not isinstance(condition, str):
            raise ConfigError(key, _shown(condition), "expected a condition, e.g. head=ga")
        if not axes:
            raise ConfigError(f"{key}.{condition}", _shown(axes), "expected axes, e.g. {head.gram_dim: '32,64'}")
        yield Conditional(condition, _axes(axes, f"{key}.{condition}"))


def _zipped(found: Any, key: str) -> Iterator[Axes]:
    if found is None:
        return
    if not isinstance(found, list):
        expected = "expected a list of groups of axes, e.g. [{model: 'cct_2_3x2,cct_7_3x1', batch_size: '64,256'}]"
        raise ConfigError(key, found, expected)
    for at, group in enumerate(found):
        axes = _axes(group, f"{key}[{at}]")
        if len(axes) < 2:
            raise ConfigError(f"{key}[{at}]", _shown(group), "expected two or more axes that vary together")
        yield axes


def _variants_by_name(blocks: Sequence[Block]) -> dict[str, Sequence[str]]:
    """Return the variants of all blocks. Raises ConfigError for a name with two meanings."""
    found: dict[str, Sequence[str]] = {}
    for block in blocks:
        for name, overrides in block.variants.items():
            if list(found.setdefault(name, overrides)) != list(overrides):
                both = f"[{', '.join(found[name])}] and [{', '.join(overrides)}]"
                raise ConfigError(f"{VARIANTS}.{name}", None, f"expected one variant of a name, found {both}")
    return found


def _baseline(found: Any, variants: Sequence[str]) -> str | None:
    if found is None:
        return variants[0] if variants else None
    if found not in variants:
        known = ", ".join(variants) or "none, as hydra.sweeper.variants is not given"
        raise ConfigError(f"{SWEEPER}.baseline", _shown(found), f"unknown variant; known: {known}")
    return str(found)


def _margin(found: Any) -> float | None:
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not (math.isfinite(found) and 0 < found < 100):
        expected = "expected an equivalence margin in percentage points, a number in (0, 100)"
        raise ConfigError(f"{SWEEPER}.margin", _shown(found), expected)
    return float(found)


def _shown(found: object) -> object:
    return "null" if found is None else found if str(found).strip() else "''"
