"""From overrides to the cells of a grid, within Hydra's command line and without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from headsweep.config.composition import composing
from headsweep.config.launcher.launchers import LocalConfig, parse_launcher
from headsweep.config.own_files import warn_of_unread_files
from headsweep.config.study.exclusions import Exclusions
from headsweep.config.study.grid import Compose
from headsweep.config.study.language import read_study
from headsweep.config.study.points import Points, points
from headsweep.config.yaml_files import load_yaml
from headsweep.errors import ConfigError, UserError
from headsweep.folders import CONF


@dataclass(frozen=True)
class GridRequest:
    """A grid as a command asks for it."""

    points: Points
    compose: Compose
    exclusions: Exclusions


@contextmanager
def composer(config_dir: Path | None = None) -> Iterator[Compose]:
    """Compose the configuration of a list of overrides, as `python src/train.py OVERRIDES` does.

    Args:
        config_dir: Hydra's option --config-dir, a folder with further files.
    """

    def composed(overrides: Sequence[str]) -> DictConfig:
        with composing(overrides):
            return compose("train", overrides=list(overrides))

    with initialize_config_dir(str(CONF), version_base="1.3"):
        if config_dir is not None:
            loader = GlobalHydra.instance().config_loader()
            assert isinstance(loader, ConfigLoaderImpl)
            search_path = loader.get_search_path()
            search_path.prepend("command-line", f"file://{config_dir.resolve()}", SearchPathQuery(provider="schema"))
            loader.repository.initialize_sources(search_path)
        yield composed


def read_grid(arguments: Sequence[str]) -> tuple[GridRequest, DictConfig]:
    """Return the grid of `python src/train.py -m ARGUMENTS` and Hydra's part of its configuration, within `composer`.

    Raises:
        UserError: see `points`. What Hydra raises for a wrong override.
    """

    def load(overrides: Sequence[str]) -> DictConfig:
        return compose("train", overrides=list(overrides), return_hydra_config=True)

    warn_of_unread_files()
    with composing(arguments):
        parsed = OverridesParser.create().parse_overrides(list(arguments))
        fixed = [word for word, override in zip(arguments, parsed, strict=True) if not override.is_sweep_override()]
        hydra = load(fixed).hydra
        check_launcher(hydra.launcher)
        found = points(read_study(hydra.sweeper), arguments, GlobalHydra.instance().config_loader())
        return grid_request(found, hydra, arguments, load), hydra


def grid_request(
    found: Points,
    hydra: DictConfig,
    arguments: Sequence[str],
    load: Callable[[Sequence[str]], DictConfig],
) -> GridRequest:
    """Return the grid of a study's points.

    Args:
        found: the points.
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

    # Hydra's `now` is the moment at which a cell is composed: it would be another one in each.
    started = time.localtime()
    OmegaConf.register_new_resolver("now", lambda pattern: time.strftime(pattern, started), replace=True)
    exclusions = Exclusions(hydra.launcher.get("exclude", ()), [*read_study(hydra.sweeper).axes(), *arguments])
    return GridRequest(found, composed, exclusions)


def local_defaults() -> LocalConfig:
    """Return the keys of conf/hydra/launcher/local.yaml."""
    keys = load_yaml(CONF / "hydra" / "launcher" / "local.yaml")
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
