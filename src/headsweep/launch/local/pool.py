"""The local launcher's engine: each run, or group of runs on the same stored tokens, its own process.

As many processes train at a time as there are slots. A run that dies cannot take others down with it: those of its
group continue from their last checkpoints, each in its own process.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from headsweep.config import RunConfig
from headsweep.errors import UserError
from headsweep.launch.launcher import Notify
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.scheduler import Schedule
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.launch.signals import StopRequest
from headsweep.plan.code_of_runs import code_by_run, record_code
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_folder import RunFolder


class LocalPool:
    """Processes on this machine."""

    def __init__(self, timeout: float | None = None, request: StopRequest | None = None, more_memory: str = "") -> None:
        """Start importing at once, in the background.

        Args:
            timeout: minutes without progress after which a run counts as hanging and is killed; None: never.
            request: see `Schedule`.
            more_memory: as well.
        """
        self._timeout, self._request, self._more_memory = timeout, request, more_memory
        self.processes = Processes()

    def check(self, runs: Sequence[RunConfig]) -> list[RunCost | UserError]:
        """Build every run on the meta device; its cost, or why it cannot be built."""
        return self.processes.ask("check", runs)

    def train(
        self,
        folders: Sequence[RunFolder],
        slots: Slots,
        display: Display,
        notify: Notify,
        until: int | None = None,
        code: Mapping[str, Any] | None = None,
    ) -> None:
        """Train the runs in `folders`, to epoch `until` or to their end. One that fails, dies or hangs does so alone.

        Runs that read the same batches of stored tokens share processes. `code` is recorded in each run as it starts.

        Raises:
            Interrupted: the process was asked to stop; every run has written a checkpoint.
        """

        def start(group: Sequence[RunFolder], gpu: str | None) -> tuple[ForkServerProcess, Connection]:
            if code:  # a command with other code may have recorded that since the launch
                try:
                    record_code(code_by_run(group, code))
                except OSError as error:  # the disk is full; other runs may still end well
                    raise UserError(f"{error.filename or group[0].path}: {error.strerror or error}") from error
            return self.processes.start("train", [folder.path for folder in group], slots.threads, gpu, until)

        Schedule(folders, slots, start, self._timeout, display, notify, self._request, self._more_memory)()

    def log_models(self, folders: Sequence[RunFolder], config: RunConfig) -> int:
        """As `predictor.log_models`, in a process that has torch already."""
        return self.processes.ask("log_models", folders, config)


def log_models(folders: Sequence[RunFolder], config: RunConfig) -> int:
    """As `predictor.log_models`, in a process of its own. Raises UserError where there is no torch."""
    if importlib.util.find_spec("torch") is None:
        raise UserError("no models were logged: there is no torch here; `headsweep sync` does it where it is")
    return LocalPool().log_models(folders, config)
