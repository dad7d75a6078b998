"""Hydra's entry points: from its composed configurations to a run, or to the sweep of a launcher."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hydra
from hydra._internal.hydra import Hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from headsweep.config import RunConfig, parse
from headsweep.config.auto_batch_size import AUTO, KEY, is_auto, with_size
from headsweep.config.command_line import spell_out
from headsweep.config.composition import composing
from headsweep.config.own_files import warn_of_unread_files
from headsweep.config.study.expansion import GridRequest, given
from headsweep.config.study.language import declared, read_study
from headsweep.config.study_keys import SWEEPER
from headsweep.errors import ConfigError, UserError
from headsweep.exit_codes import crashing, exit_on_errors, one_line_errors
from headsweep.folders import CONF, TRAIN

if TYPE_CHECKING:
    from headsweep.launch.launcher import Launcher
    from headsweep.plan.expand import Expansion
    from headsweep.plan.lookup import Lookup
    from headsweep.plan.plan import Plan


def train(words: Sequence[str]) -> None:
    """Train what the words of a command describe: one run, or with -m a grid; any error in them is one line."""
    with command_line(words):
        _main()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _main(config: DictConfig) -> float:
    return run_single(config)


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Hand the words of a command to Hydra, which is called inside; any error in them is one line."""
    with one_line_errors(), composing(words), _mode_looked_up_where_needed(words):
        sys.argv[1:] = spell_out(words)
        warn_of_unread_files()
        yield


@contextmanager
def _mode_looked_up_where_needed(words: Sequence[str]) -> Iterator[None]:
    """Let Hydra look up `hydra.mode` only for a command without -m, where a file may set it.

    To find it, Hydra composes the whole configuration an extra time. With -m it is looked up only if the command line
    sets it, so that Hydra can warn.
    """
    find = Hydra.get_mode
    if not {"-m", "--multirun"}.isdisjoint(words) and "hydra.mode" not in "".join(words):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = find  # type: ignore[method-assign]


def run_single(config: DictConfig) -> float:
    """Train one run in this process; return the value that a search maximizes."""
    if HydraConfig.get().mode is RunMode.RUN:
        with exit_on_errors():  # before Hydra adds a line of its own
            _check_single(HydraConfig.get())
            return _run_single(config)
    return _run_single(config)


def run_grid(request: GridRequest, launcher_keys: DictConfig) -> list[tuple[Sequence[str], float | None]]:
    """Start the cells of a grid, but for those that it leaves out.

    Args:
        request: the grid.
        launcher_keys: `hydra.launcher`; see `make_launcher`.

    Returns:
        For each cell its overrides and the value that a search maximizes; None where it was left out, or has not been
        waited for.

    Raises:
        UserError: cells or keys are not valid; nothing has been started.
    """
    grid = expand_grid(request, launcher_keys)
    plan = grid.run()
    from headsweep.launch.conclude import objectives

    is_known = grid.launcher.wait or not grid.launcher.detached
    values = grid.expansion.by_cell(objectives(plan) if is_known else [None] * len(grid.runs))
    return [(point.overrides, value) for point, value in zip(grid.expansion.points, values, strict=True)]


@dataclass(frozen=True)
class ExpandedGrid:
    """The runs of a grid, all valid, and what starts them."""

    launcher: Launcher
    lookup: Lookup
    expansion: Expansion
    runs: list[RunConfig]

    def run(self, shows_table: bool = True) -> Plan:
        """Start what is missing; see `run_sweep`."""
        from headsweep.launch.run_sweep import run_sweep

        return run_sweep(self.runs, self.launcher, self.lookup, self.expansion.declared, shows_table)


def expand_grid(request: GridRequest, launcher_keys: DictConfig) -> ExpandedGrid:
    """Compose and check the cells of a grid; see `run_grid`. Raises UserError if a cell or a key is not valid."""
    from headsweep.launch.launcher import make_launcher
    from headsweep.plan.expand import expand
    from headsweep.plan.lookup import Lookup

    launcher, lookup = make_launcher(launcher_keys), Lookup()
    expansion = expand(request, launcher.batch_size, lookup)
    return ExpandedGrid(launcher, lookup, expansion, expansion.runs())


def _check_single(hydra: HydraConf) -> None:
    """Raise UserError where a single run would ignore what the command line or a study gives for grids."""
    launchers = (word for word in given(hydra.overrides.hydra) if re.match(r"[+~]*hydra[./]launcher\b", word))
    if key := next(launchers, None):
        raise UserError(
            f"{key}: expected -m, as launchers start grids and a single run would ignore it; add -m, or leave it out"
        )
    if keys := declared(hydra.sweeper):
        axes = " ".join(read_study(hydra.sweeper).axes())
        study = next((word for word in given(hydra.overrides.task) if word.startswith("+")), f"{SWEEPER}.{keys[0]}")
        found = f" ({axes})" * bool(axes)
        raise UserError(
            f"{study}: expected -m, as a study is a grid, whose axes a single run would drop; add -m{found}"
        )
    launcher = hydra.runtime.choices.get("hydra/launcher")
    if launcher != "local":
        raise UserError(
            f"hydra/launcher={launcher}: expected -m, as launchers start grids and a single run would ignore it; add -m"
        )


@crashing()
def _run_single(config: DictConfig) -> float:
    is_measured = is_auto([OmegaConf.select(config, KEY)])
    if is_measured:
        _check_auto_batch_size()
    run = parse(with_size(config, None) if is_measured else config, HydraConfig.get().runtime.cwd)
    if _is_one_of_several():
        from headsweep.launch.torchrun import run_under_torchrun

        return run_under_torchrun(run)
    from headsweep.plan.lookup import Lookup

    lookup = Lookup()
    if is_measured:
        from headsweep.autotune.sharing import ALONE  # the run has its device to itself

        size = ALONE.batch_size(lookup.resolved([run]))
        run = parse(with_size(config, size), HydraConfig.get().runtime.cwd)
    from headsweep.launch.conclude import objectives
    from headsweep.launch.in_process import InProcess
    from headsweep.launch.run_sweep import run_sweep

    return objectives(run_sweep([run], InProcess(), lookup))[0]


def _check_auto_batch_size() -> None:
    """Raise ConfigError where this process cannot measure which batch size fits."""
    if _is_one_of_several():
        expected = "expected a number under torchrun, found auto, which one process measures"
        raise ConfigError(KEY, AUTO, f"{expected}; give what {' '.join(TRAIN)} alone finds, times the ranks")
    if HydraConfig.get().mode is not RunMode.RUN:
        expected = "expected a number with this launcher, which starts each cell separately"
        raise ConfigError(KEY, AUTO, f"{expected}; give one, or hydra/launcher=local")


def _is_one_of_several() -> bool:
    """Return whether torchrun has started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
