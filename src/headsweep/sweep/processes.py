"""Processes from a forkserver that has imported everything once: each starts in a fraction of a second.

They are deaf to the signals that the launcher answers, and execute the functions of the module `worker`.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from typing import Any

from headsweep.children import born_deaf
from headsweep.errors import UserError


class Processes:
    """A source of processes that can compute."""

    def __init__(self) -> None:
        """Start importing at once, in the background."""
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        # Hydra too: a new process runs the entry script, which imports it. The digits come with scikit-learn, whose
        # import takes longer than all else that a run does before its first step.
        self._context.set_forkserver_preload(["headsweep.sweep.worker", "hydra", "sklearn.datasets"])
        with born_deaf():  # the forkserver, and with it every run
            ensure_running()

    def ask(self, task: str, *arguments: object) -> Any:
        """What a process says to a task. Raises UserError if it ends without a word."""
        process, connection = self.start(task, *arguments)
        try:
            return connection.recv()
        except EOFError:
            process.join()
            raise UserError(f"the process of {task} ended with exit code {process.exitcode}, see above") from None
        finally:
            process.kill()  # when it is interrupted it has nobody to answer to

    def start(self, task: str, *arguments: object) -> tuple[ForkServerProcess, Connection]:
        """A process that executes a task, and the connection to it."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_call, args=(task, *arguments, theirs))
        process.start()
        theirs.close()
        return process, ours


def _call(task: str, *arguments: object) -> None:
    """Name a function of the worker module, which only the new process imports: it is heavy."""
    from headsweep.sweep import worker

    getattr(worker, task)(*arguments)
