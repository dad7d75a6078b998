"""The launcher `local`: the runs of a sweep on this machine, each in its own process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headsweep.config import AttentionKernel, CompactConfig, RunConfig
from headsweep.config.launcher.launchers import LocalConfig
from headsweep.errors import ConfigError, UserError
from headsweep.launch.halving import Halving
from headsweep.launch.launcher import Launcher, Notify
from headsweep.launch.local.cpu_precision import faster_precision
from headsweep.launch.local.gpus import gpus_for
from headsweep.launch.local.pool import LocalPool
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.plan.code_of_runs import current_code
from headsweep.plan.plan import Plan
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_folder import RunFolder


class LocalLauncher(Launcher):
    """A pool of processes. It takes slots as a number; `autotune.launcher` finds slots=auto."""

    settings_type = LocalConfig
    pool: LocalPool
    slots: Slots

    def __init__(self, settings: LocalConfig) -> None:
        self.settings, self.attempts = settings, settings.attempts
        self._code: dict[str, Any] | None = None  # known when the first runs start

    def prepare(self, runs: Sequence[RunConfig]) -> None:
        """Start importing what the processes of runs need."""
        self.pool = LocalPool(self.settings.timeout)

    def accept(self, plan: Plan) -> None:
        """Decide how many runs train at a time. Raises ConfigError if the keys do not fit this machine."""
        self.slots = self.slots_for(plan.configs)

    def slots_for(self, runs: Sequence[RunConfig]) -> Slots:
        """Return what the machine gives to `runs`, all that are planned. Raises ConfigError as `accept`."""
        keys = self.settings
        slots = keys.slots if isinstance(keys.slots, int) else None  # auto: see `autotune.launcher`
        return Slots.of_this_machine(slots, keys.threads, max(1, len(runs)), gpus_for(runs), keys.runs_per_gpu)

    def screening(self, plan: Plan) -> Halving | None:
        """Return successive halving, if it is asked for."""
        return None if self.settings.halving is None else Halving(self.settings.halving, self, plan)

    def check(self, runs: Sequence[RunConfig]) -> list[RunCost | UserError]:
        """Build every run on the meta device, in a process; its cost, or why it cannot be built or trained here."""
        return [_without_gpu(run) or cost for run, cost in zip(runs, self.pool.check(runs), strict=True)]

    def forecast(self, plan: Plan) -> list[str]:
        """Return a line where another precision is known to be faster on this machine."""
        missing = [planned.run for planned in plan.runs if planned.folder.result() is None]
        line = faster_precision(missing)
        return [line] if line else []

    def start(self, missing: Sequence[RunFolder], display: Display, notify: Notify, until: int | None = None) -> None:
        """Train the runs in `missing`, to epoch `until` or to their end, as many at a time as there are slots."""
        if missing:
            self._code = self._code or current_code(missing[0].output.path)
            self.pool.train(missing, self.slots, display, notify, until, self._code)

    def log_models(self, folders: Sequence[RunFolder], config: RunConfig) -> int:
        """As `Launcher.log_models`, in a process that has torch already."""
        return self.pool.log_models(folders, config)


def _without_gpu(run: RunConfig) -> UserError | None:
    """Return why a run needs a GPU, if this machine has none for it."""
    if (
        not isinstance(run.model, CompactConfig)
        or run.model.attention_kernel is AttentionKernel.torch
        or gpus_for([run])
    ):
        return None
    return ConfigError(
        "model.attention_kernel", "triton", "expected torch: the kernels are for a GPU, and there is none"
    )
