"""Hydra's launcher `local`, the default for -m: the whole grid as one study on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from headsweep.config.composition import composing
from headsweep.config.exclusions import Exclusions
from headsweep.config.expansion import given, study_axes
from headsweep.config.launchers import LocalConfig, parse_launcher
from headsweep.entry import run_grid
from headsweep.errors import UserError
from headsweep.exit_codes import crashing


class LocalLauncher(Launcher):
    """Hands all cells of the grid to headsweep at once, so that they are checked and frozen before any starts."""

    def __init__(self, exclude: Sequence[str], **settings: Any) -> None:
        """Take the keys of `conf/hydra/launcher/local.yaml`; `settings` are those of `LocalConfig`."""
        self._exclude, self._settings = exclude, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs to compose the cells."""
        self._context, self._config = hydra_context, config

    @crashing()
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train what is missing of the cells; the value of each is its accuracy, or None if left out."""
        machine = parse_launcher(LocalConfig, self._settings)
        values = run_grid(job_overrides, self._compose, self._exclusions(), machine)
        return jobs(job_overrides, values)

    def _exclusions(self) -> Exclusions:
        hydra = self._config.hydra
        return Exclusions(self._exclude, [*study_axes(hydra.sweeper), *given(hydra.overrides.task)])

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        with composing(overrides):
            cell = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        for section in ("launcher", "sweeper"):
            if cell.hydra[section] != self._config.hydra[section]:
                raise UserError(
                    f"a value of an axis sets hydra.{section}, which is one for all cells; "
                    "choose that value alone, without an axis"
                )
        return cell


def jobs(cells: Sequence[Sequence[str]], values: Sequence[float | None]) -> list[JobReturn]:
    """What Hydra's sweepers expect of a launcher: for each cell's overrides its value."""
    done = []
    for overrides, value in zip(cells, values, strict=True):
        done.append(JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED))
        done[-1].return_value = value
    return done
