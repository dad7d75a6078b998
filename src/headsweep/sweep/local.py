"""The local launcher's engine: each run its own process, as many at a time as there are slots.

Processes come from a forkserver that has imported everything once: a run starts in a fraction of a second and cannot
take others down with it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from typing import Any

from headsweep.children import born_deaf
from headsweep.config import RunConfig
from headsweep.errors import ConfigError, UserError
from headsweep.sweep.display import Display
from headsweep.sweep.plan import Cost
from headsweep.sweep.schedule import Schedule
from headsweep.sweep.slots import Slots
from headsweep.sweep.stopping import StopRequest
from headsweep.tracking.run_folder import RunFolder


class LocalPool:
    """Processes on this machine."""

    def __init__(self, slots: Slots, timeout: float | None = None, request: StopRequest | None = None) -> None:
        """Start importing at once, in the background.

        Args:
            slots: what the machine gives to runs.
            timeout: minutes without progress after which a run counts as hanging and is killed; None: never.
            request: see `Schedule`.

        Raises:
            ConfigError: the timeout is no number above 0.
        """
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ConfigError("hydra.launcher.timeout", timeout, "want minutes, a number above 0, or null")
        self._slots, self._timeout, self._request = slots, timeout, request
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        # Hydra too: a new process runs the entry script, which imports it. The digits come with scikit-learn, whose
        # import takes longer than all else that a run does before its first step.
        self._context.set_forkserver_preload(["headsweep.sweep.worker", "hydra", "sklearn.datasets"])
        with born_deaf():  # the forkserver, and with it every run
            ensure_running()

    def check(self, runs: Sequence[RunConfig]) -> list[Cost | UserError]:
        """Build every run on the meta device; its cost, or what is wrong with it."""
        return self._ask("check", runs)

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

        def start(folder: RunFolder, gpu: str | None) -> tuple[ForkServerProcess, Connection]:
            return self._start("train", folder.path, self._slots.threads, gpu, until)

        Schedule(folders, self._slots, start, self._timeout, display, changed, self._request)()

    def log_models(self, folders: Sequence[RunFolder], uri: str) -> int:
        """As `predictor.log_models`, in a process that has torch already."""
        answer = self._ask("log_models", folders, uri)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def _ask(self, task: str, *arguments: object) -> Any:
        """What a process says to a task."""
        process, connection = self._start(task, *arguments)
        try:
            return connection.recv()
        except EOFError:
            process.join()
            raise UserError(f"the process of {task} ended with exit code {process.exitcode}, see above") from None
        finally:
            process.kill()  # when it is interrupted it has nobody to answer to

    def _start(self, task: str, *arguments: object) -> tuple[ForkServerProcess, Connection]:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_call, args=(task, *arguments, theirs))
        process.start()
        theirs.close()
        return process, ours


def _call(task: str, *arguments: object) -> None:
    """Name a function of the worker module, which only the new process imports: it is heavy."""
    from headsweep.sweep import worker

    getattr(worker, task)(*arguments)
