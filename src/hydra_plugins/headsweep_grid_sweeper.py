"""Hydra's sweeper `grid`, the default for -m: the product of the axes, handed to headsweep's launchers at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from headsweep.config.composition import composing
from headsweep.config.study.expansion import check_launcher
from headsweep.config.study.language import declared, read_study
from headsweep.config.study.points import points
from headsweep.config.study_keys import SWEEPER
from headsweep.errors import ConfigError


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, which composes every cell before the launcher does: too slow for a thousand cells.

    Launchers with `launch_grid` check all cells before any starts, and a run's frozen configuration takes the place of
    Hydra's multirun.yaml; other launchers are served as by Hydra's basic sweeper.
    """

    def __init__(self, max_batch_size: int | None, params: Any, **study: Any) -> None:
        """Take the keys of conf/hydra/sweeper/grid.yaml; `sweep` reads those in `study` from the configuration."""
        super().__init__(max_batch_size, params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher. Raises ConfigError if `hydra.launcher` is not the keys of one."""
        chosen = config.hydra.launcher
        check_launcher(chosen)
        plugin = Plugins.instance().class_name_to_class.get(chosen._target_)
        self._hands_over = hasattr(plugin, "launch_grid")
        if self._hands_over and str(chosen).count("_target_") > 1:
            raise ConfigError("hydra.launcher", None, "expected no _target_ within its keys; leave it out")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch the cells of the study; axes of the command line replace the study's."""
        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        sweeper = self.config.hydra.sweeper
        found = points(read_study(sweeper), arguments, self.hydra_context.config_loader)
        if not self._hands_over:
            if others := [key for key in declared(sweeper) if key != "params"]:
                expected = (
                    "expected a launcher of headsweep, such as hydra/launcher=local; others can start params alone"
                )
                raise ConfigError(f"{SWEEPER}.{others[0]}", None, expected)
            return super().sweep(arguments)
        if self.max_batch_size is not None:
            expected = "expected null with headsweep's launchers, which check all cells before any starts"
            raise ConfigError("hydra.sweeper.max_batch_size", self.max_batch_size, expected)
        return [self.launcher.launch_grid(found)]  # type: ignore[attr-defined]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every cell of a launcher that takes them one by one."""
        for overrides in batch:
            with composing(overrides):
                super().validate_batch_is_legal([overrides])
