"""The local launcher's engine: each run its own process, as many at a time as there are slots.

A run that dies cannot take others down with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Protocol

from headsweep.config import RunConfig
from headsweep.errors import ConfigError, UserError
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.scheduler import Schedule
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.launch.signals import StopRequest
from headsweep.plan.plan import Cost
from headsweep.tracking.run_folder import RunFolder


class SlotChoice(Protocol):
    """Slots that are chosen when the first runs are to be trained (see `autotune.slots`)."""

    def decided(
        self,
        processes: Processes,
        folders: Sequence[RunFolder],
        timeout: float | None,
        say: Callable[[str], object],
    ) -> Slots:
        """Return what the machine gives to the runs in `folders`; `say` prints a line. Raises Interrupted."""


class LocalPool:
    """Processes on this machine."""

    def __init__(
        self, slots: Slots | SlotChoice, timeout: float | None = None, request: StopRequest | None = None
    ) -> None:
        """Start importing at once, in the background.

        Args:
            slots: what the machine gives to runs, or what finds it when the first of them are to be trained.
            timeout: minutes without progress after which a run counts as hanging and is killed; None: never.
            request: see `Schedule`.

        Raises:
            ConfigError: the timeout is no number above 0.
        """
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ConfigError("hydra.launcher.timeout", timeout, "want minutes, a number above 0, or null")
        self._slots, self._timeout, self._request = slots, timeout, request
        self._processes = Processes()

    def check(self, runs: Sequence[RunConfig]) -> list[Cost | UserError]:
        """Build every run on the meta device; its cost, or what is wrong with it."""
        return self._processes.ask("check", runs)

    def train(
        self,
        folders: Sequence[RunFolder],
        display: Display,
        changed: Callable[[RunFolder], None],
        until: int | None = None,
    ) -> None:
        """Train the runs in `folders`, to epoch `until` or to their end. One that fails, dies or hangs does so alone.

        Raises:
            Interrupted: someone asked to stop; every run has written a checkpoint.
        """
        if not isinstance(self._slots, Slots):
            self._slots = self._slots.decided(self._processes, folders, self._timeout, display.say)
        slots = self._slots

        def start(folder: RunFolder, gpu: str | None) -> tuple[ForkServerProcess, Connection]:
            return self._processes.start("train", folder.path, slots.threads, gpu, until)

        Schedule(folders, slots, start, self._timeout, display, changed, self._request)()

    def log_models(self, folders: Sequence[RunFolder], config: RunConfig) -> int:
        """As `predictor.log_models`, in a process that has torch already."""
        return self._processes.ask("log_models", folders, config)
