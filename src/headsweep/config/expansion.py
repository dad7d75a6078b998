"""From overrides to the cells of a grid, within Hydra's command line and without it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from headsweep.config.composition import composing
from headsweep.config.exclusions import Exclusions
from headsweep.config.grid import Compose
from headsweep.config.launchers import LocalConfig, parse_launcher
from headsweep.config.parsing import PROJECT_ROOT
from headsweep.errors import ConfigError, UserError
from headsweep.text import escaped

MOST_CELLS = 100_000  # of one command: more are a typing error, and fill the memory


@dataclass(frozen=True)
class GridRequest:
    """A grid as a command asks for it."""

    cells: Sequence[Sequence[str]]  # the overrides of each
    compose: Compose
    exclusions: Exclusions


@contextmanager
def composer() -> Iterator[Compose]:
    """Compose the configuration of a list of overrides, as `python src/train.py OVERRIDES` does."""

    def composed(overrides: Sequence[str]) -> DictConfig:
        with composing(overrides):
            return compose("train", overrides=list(overrides))

    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        yield composed


def read_grid(arguments: Sequence[str]) -> tuple[GridRequest, DictConfig]:
    """Return the grid of `python src/train.py -m ARGUMENTS` and Hydra's part of its configuration, within `composer`.

    Raises:
        UserError: see `points`. What Hydra raises for a wrong override.
    """

    def load(overrides: Sequence[str]) -> DictConfig:
        return compose("train", overrides=list(overrides), return_hydra_config=True)

    with composing(arguments):
        parsed = OverridesParser.create().parse_overrides(list(arguments))
        fixed = [word for word, override in zip(arguments, parsed, strict=True) if not override.is_sweep_override()]
        hydra = load(fixed).hydra
        check_launcher(hydra.launcher)
        cells = points(study_axes(hydra.sweeper), arguments, GlobalHydra.instance().config_loader())
        return grid_request(cells, hydra, arguments, load), hydra


def grid_request(
    cells: Sequence[Sequence[str]],
    hydra: DictConfig,
    arguments: Sequence[str],
    load: Callable[[Sequence[str]], DictConfig],
) -> GridRequest:
    """Return the grid of `cells`.

    Args:
        cells: the overrides of each.
        hydra: Hydra's part of the configuration that they share.
        arguments: the overrides of the command line.
        load: composes a list of overrides, Hydra's part included.
    """

    def composed(overrides: Sequence[str]) -> DictConfig:
        with composing(overrides):
            cell = load(overrides)
        for section in ("launcher", "sweeper"):
            if cell.hydra[section] != hydra[section]:
                raise UserError(
                    f"expected one hydra.{section} for all cells, found an axis with a value that sets it; "
                    "give that value without an axis"
                )
        return cell

    exclusions = Exclusions(hydra.launcher.get("exclude", ()), [*study_axes(hydra.sweeper), *arguments])
    return GridRequest(cells, composed, exclusions)


def local_defaults() -> LocalConfig:
    """Return the keys of conf/hydra/launcher/local.yaml."""
    keys = OmegaConf.load(PROJECT_ROOT / "conf" / "hydra" / "launcher" / "local.yaml")
    assert isinstance(keys, DictConfig)
    return parse_launcher(LocalConfig, keys)


def check_launcher(chosen: Any) -> None:
    """Raise ConfigError if `hydra.launcher` is not the keys of a launcher."""
    if not isinstance(chosen, DictConfig) or "_target_" not in chosen:
        advice = "choose one with hydra/launcher=NAME, in a study with `- override /hydra/launcher: NAME` in `defaults`"
        raise ConfigError("hydra.launcher", chosen, f"expected the keys of a launcher; {advice}")


def given(overrides: Any) -> list[str]:
    """Return the overrides that Hydra keeps in a configuration; to read one there would resolve its interpolations."""
    words = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(words, list)
    return words


def study_axes(sweeper: Any) -> list[str]:
    """Return the axes of a study, `hydra.sweeper.params`, as overrides. Raises ConfigError for anything else."""
    axes = (sweeper.get("params") if isinstance(sweeper, Mapping) else None) or {}
    if not isinstance(axes, Mapping):
        raise ConfigError("hydra.sweeper.params", axes, "expected axes and their values, e.g. {head: 'seqpool,ga'}")
    return [f"{key}={'null' if values is None else values}" for key, values in axes.items()]


def points(study: Sequence[str], arguments: Sequence[str], loader: ConfigLoader | None = None) -> list[list[str]]:
    """Return the overrides of each cell: the product of the axes, where the command line's replace the study's.

    Raises:
        UserError: an override cannot be read, Hydra would expand it to other values or drop one of two for the same
            key, or there are more than `MOST_CELLS`.
    """
    overrides = [*study, *arguments]
    with composing(overrides):
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
        _check_repeated(parsed[len(study) :])
        _check_sorted(parsed)
        sizes = {override.get_key_element(): _count(override) for override in parsed}
        if empty := [key for key, size in sizes.items() if not size]:
            raise ConfigError(empty[0], None, "expected at least one value of an axis, found none")
        if math.prod(sizes.values()) > MOST_CELLS:
            counts = {key: "more" if size > MOST_CELLS else size for key, size in sizes.items() if size > 1}
            axes = ", ".join(f"{key}: {count}" for key, count in counts.items())
            raise UserError(f"expected a grid of at most {MOST_CELLS} cells, found more (values of {axes})")
        (cells,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        return cells


def _check_repeated(parsed: Sequence[Override]) -> None:
    """Raise UserError for a key given twice, if a grid would drop an axis, or keywords that a single run merges."""
    earlier: dict[str, Override] = {}
    for override in parsed:
        key = override.get_key_element()
        before = earlier.get(key)
        if before and (before.is_sweep_override() or isinstance(before.value(), dict)):
            found = f"{escaped(before.input_line or '')} and {escaped(override.input_line or '')}"
            raise UserError(f"{key}: expected one override in a grid, found {found}; leave one out")
        earlier[key] = override


def _check_sorted(parsed: Sequence[Override]) -> None:
    """Raise UserError for a sorted range: where it ends between two steps, Hydra expands it to other values."""
    for override in parsed:
        if isinstance(override.value(), RangeSweep) and re.search(r"\bsort\(", override.input_line or ""):
            found = escaped(override.input_line or "")
            raise UserError(f"{found}: expected a range in its own order, found a sorted one; give range(...) alone")


def _count(override: Override) -> int:
    """Return the number of values of an axis, at most `MOST_CELLS` + 1."""
    if not override.is_discrete_sweep():
        return 1
    return sum(1 for _ in islice(override.sweep_string_iterator(), MOST_CELLS + 1))
