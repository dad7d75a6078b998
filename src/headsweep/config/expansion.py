"""Hydra's composition and its grids outside Hydra's command line, for what reads configurations and runs none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from headsweep.config.exclusions import Exclusions, left_out
from headsweep.config.grid import Cell, Compose, Grid
from headsweep.config.parsing import PROJECT_ROOT
from headsweep.errors import ConfigError, UserError
from headsweep.text import escaped

MOST_CELLS = 100_000  # of one command: more are a slip of the finger, and fill the memory


@contextmanager
def composer() -> Iterator[Compose]:
    """Compose the configuration of a list of overrides, as `python src/train.py OVERRIDES` does."""

    def composed(overrides: Sequence[str]) -> DictConfig:
        with composing(overrides):
            return compose("train", overrides=list(overrides))

    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        yield composed


def expand(arguments: Sequence[str], grid: Grid) -> list[Cell]:
    """The cells of `python src/train.py -m ARGUMENTS`, within `composer`; those that its study leaves out left out.

    Raises:
        ConfigError: every cell is left out, or an exclusion cannot be read. What Hydra raises for a wrong override.
    """
    with composing(arguments):
        parsed = OverridesParser.create().parse_overrides(list(arguments))
        fixed = [word for word, override in zip(arguments, parsed, strict=True) if not override.is_sweep_override()]
        hydra = compose("train", overrides=fixed, return_hydra_config=True).hydra
    study = study_axes(hydra.sweeper)
    cells = [grid.cell(point) for point in points(study, arguments, GlobalHydra.instance().config_loader())]
    out = left_out(cells, Exclusions(hydra.launcher.exclude, [*study, *arguments]))
    return [cell for cell, absent in zip(cells, out, strict=True) if not absent]


def given(overrides: Any) -> list[str]:
    """The overrides that Hydra keeps in a configuration, where an interpolation in one would be resolved."""
    words = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(words, list)
    return words


def study_axes(sweeper: Any) -> list[str]:
    """The axes that a study gives in `hydra.sweeper.params`, as overrides. Raises ConfigError if they are none."""
    axes = (sweeper.get("params") if isinstance(sweeper, Mapping) else None) or {}
    if not isinstance(axes, Mapping):
        raise ConfigError("hydra.sweeper.params", axes, "expected axes and their values, e.g. {head: 'seqpool,ga'}")
    return [f"{key}={'null' if values is None else values}" for key, values in axes.items()]


def points(study: Sequence[str], arguments: Sequence[str], loader: ConfigLoader | None = None) -> list[list[str]]:
    """The overrides of each cell: the product of the axes, where those of the command line replace the study's.

    Raises:
        UserError: an override cannot be read, Hydra would expand it to other values or drop one of two for the same
            key, or there are more cells than any study has.
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
    """Values of an axis, counted no further than one beyond what any grid has."""
    if not override.is_discrete_sweep():
        return 1
    return sum(1 for _ in islice(override.sweep_string_iterator(), MOST_CELLS + 1))
