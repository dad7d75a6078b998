"""Hydra's launcher `slurm`: the whole grid as one study on a SLURM cluster."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn

from headsweep.entry import submit_grid
from headsweep.exit_codes import crashing
from hydra_plugins.headsweep_local_launcher import LocalLauncher, jobs


class SlurmLauncher(LocalLauncher):
    """Expands, checks and freezes the grid as `local` does, and hands it to the cluster; `settings`: `SlurmConfig`."""

    @crashing()
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit what is missing of the cells; a cell has a value if `wait` is set, else None."""
        values = submit_grid(job_overrides, self._compose, self._exclusions(), self._settings)
        return jobs(job_overrides, values)
