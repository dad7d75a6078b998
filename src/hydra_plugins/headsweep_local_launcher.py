"""Hydra's launcher `local`, the default for -m: the whole grid as one study on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from headsweep.config.exclusions import Exclusions
from headsweep.entry import run_grid


class LocalLauncher(Launcher):
    """Hands all cells of the grid to headsweep at once, so that they are checked and frozen before any starts."""

    def __init__(self, exclude: Sequence[str], **machine: Any) -> None:
        """Take the keys of `conf/hydra/launcher/local.yaml`; `machine` is what `run_grid` hands on."""
        self._exclude, self._machine = exclude, machine

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs to compose the cells."""
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train what is missing of the cells; the value of each is its accuracy, or None if left out."""
        values = run_grid(job_overrides, self._compose, self._exclusions(), **self._machine)
        return jobs(job_overrides, values)

    def _exclusions(self) -> Exclusions:
        hydra = self._config.hydra
        axes = [f"{axis}={values}" for axis, values in (hydra.sweeper.get("params") or {}).items()]
        return Exclusions(self._exclude, [*axes, *hydra.overrides.task])

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        return self._context.config_loader.load_sweep_config(self._config, list(overrides))


def jobs(cells: Sequence[Sequence[str]], values: Sequence[float | None]) -> list[JobReturn]:
    """What Hydra's sweepers expect of a launcher: for each cell's overrides its value."""
    done = []
    for overrides, value in zip(cells, values, strict=True):
        done.append(JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED))
        done[-1].return_value = value
    return done
