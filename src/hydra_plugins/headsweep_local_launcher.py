"""Hydra's launcher `local`, the default for -m: the whole grid as one study on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from headsweep.entry import run_grid


class LocalLauncher(Launcher):
    """Hands all cells of the grid to headsweep at once, so that they are checked and frozen before any starts."""

    def __init__(self, slots: int | None, threads: int | None, exclude: Sequence[str]) -> None:
        self._slots, self._threads, self._exclude = slots, threads, exclude

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs to compose the cells."""
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose every cell and train what is missing; the value of each is its accuracy, or None if left out."""
        loader = self._context.config_loader
        configs = [loader.load_sweep_config(self._config, list(overrides)) for overrides in job_overrides]
        values = run_grid(configs, self._exclude, self._slots, self._threads)
        return [self._job(*job) for job in zip(job_overrides, configs, values, strict=True)]

    def _job(self, overrides: Sequence[str], config: DictConfig, value: float | None) -> JobReturn:
        done = JobReturn(overrides=list(overrides), cfg=config, status=JobStatus.COMPLETED)
        done.return_value = value
        return done
