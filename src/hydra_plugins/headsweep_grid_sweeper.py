"""Hydra's sweeper `grid`, the default for -m: the product of the axes, handed to headsweep's launchers at once."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn

# By name: Hydra loads the modules of plugins more than once, so that there is more than one class of each.
_OURS = (
    "hydra_plugins.headsweep_local_launcher.LocalLauncher",
    "hydra_plugins.headsweep_plan_launcher.PlanLauncher",
    "hydra_plugins.headsweep_slurm_launcher.SlurmLauncher",
)


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, which composes every cell before the launcher does: too slow for a thousand cells.

    Our launchers check all cells before any starts, and a run's frozen configuration takes the place of Hydra's
    multirun.yaml; other launchers are served as ever.
    """

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch the product of the axes, the study's first, then those of the command line."""
        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        if self.config.hydra.launcher._target_ not in _OURS:
            return super().sweep(arguments)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (cells,) = self.split_arguments(overrides, max_batch_size=None)
        return [self.launcher.launch(cells, 0)]
