"""The launcher `local` with slots=auto and batch_size=auto, which are measured on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from headsweep.autotune.sharing import Sharing
from headsweep.autotune.slots import AUTO, AutoSlots
from headsweep.config import RunConfig
from headsweep.config.launcher.launchers import LocalConfig
from headsweep.launch.launcher import Notify
from headsweep.launch.local.launcher import LocalLauncher
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.plan.plan import Plan
from headsweep.tracking.run_folder import RunFolder


class AutotunedLauncher(LocalLauncher):
    """What conf/hydra/launcher/local.yaml names."""

    def __init__(self, settings: LocalConfig) -> None:
        super().__init__(settings)
        self._sharing = Sharing(settings.slots, settings.threads, settings.runs_per_gpu)
        self._auto: AutoSlots | None = None

    def batch_size(self, runs: Sequence[RunConfig], measure: bool = True) -> int:
        """Return the batch size that fits all of `runs`, as many at a time as there are slots; see `fitting`."""
        return self._sharing.batch_size(runs, measure)

    def accept(self, plan: Plan) -> None:
        """As `LocalLauncher.accept`; slots=auto is measured when the runs are started."""
        if self.settings.slots == AUTO:
            self._auto = self._sharing.auto_slots(plan.configs)
        else:
            super().accept(plan)

    def slots_for(self, runs: Sequence[RunConfig]) -> Slots:
        """As `LocalLauncher.slots_for`; slots=auto counts as far as it is known without a measurement."""
        if self.settings.slots == AUTO and runs:
            return self._sharing.auto_slots(runs).expected()
        return super().slots_for(runs)

    def start(self, missing: Sequence[RunFolder], display: Display, notify: Notify, until: int | None = None) -> None:
        """As `LocalLauncher.start`, once slots=auto has been measured."""
        if self._auto and missing:
            self.slots = self._auto.decided(self.pool.processes, missing, self.settings.timeout, display.say)
            self._auto = None
        super().start(missing, display, notify, until)
