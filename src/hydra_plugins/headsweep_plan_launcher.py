"""Hydra's launcher `plan`: says what the launcher `local` would train."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn

from headsweep.entry import plan_grid
from hydra_plugins.headsweep_local_launcher import LocalLauncher


class PlanLauncher(LocalLauncher):
    """Expands and checks the grid as `local` does, prints it, and starts nothing."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Print the plan; exits with 2 if a cell is not valid."""
        plan_grid(job_overrides, self._compose, self._exclusions(), **self._machine)
        return []
