"""Hydra's launcher `plan`: says what the launcher `local` would train."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn

from headsweep.config.launchers import PlanConfig, parse_launcher
from headsweep.config.slurm import SlurmConfig
from headsweep.entry import plan_grid
from headsweep.exit_codes import crashing
from hydra_plugins.headsweep_local_launcher import LocalLauncher


class PlanLauncher(LocalLauncher):
    """Expands and checks the grid as `local` does, prints it, and starts nothing."""

    @crashing()
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Print the plan; exits with 2 if a cell is not valid."""
        clusters = SlurmConfig.__dataclass_fields__.keys() - PlanConfig.__dataclass_fields__.keys()
        own = {key: value for key, value in self._settings.items() if key not in clusters}  # of a study for a cluster
        plan_grid(job_overrides, self._compose, self._exclusions(), parse_launcher(PlanConfig, own))
        return []
