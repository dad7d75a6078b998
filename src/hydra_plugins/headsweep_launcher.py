"""One Hydra plugin for all launchers of headsweep; `hydra.launcher.class` names the launcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from headsweep.config.study.expansion import given, grid_request
from headsweep.config.study.points import Points, plain_points
from headsweep.entry import run_grid
from headsweep.exit_codes import crashing


class HeadsweepLauncher(Launcher):
    """Hands all cells of a grid to headsweep at once, so that they are checked and frozen before any starts."""

    def __init__(self, **keys: Any) -> None:
        """Take the keys of conf/hydra/launcher/NAME.yaml, which `launch` reads from the configuration."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs to compose the cells."""
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start the cells of another sweeper than `grid`."""
        return self.launch_grid(plain_points(job_overrides))

    # The sweeper looks for it. `isinstance` would not do: Hydra loads the modules of plugins more than once.
    @crashing()
    def launch_grid(self, points: Points) -> list[JobReturn]:
        """Start what is missing of the cells; return the value of each, as Hydra's sweepers expect it."""
        hydra = self._config.hydra
        jobs = []
        for overrides, value in run_grid(
            grid_request(points, hydra, given(hydra.overrides.task), self._load), hydra.launcher
        ):
            jobs.append(JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED))
            jobs[-1].return_value = value
        return jobs

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        return self._context.config_loader.load_sweep_config(self._config, list(overrides))
