"""Processes from a forkserver that has imported everything once: each starts in a fraction of a second.

They block the signals that the launcher handles, and execute the functions of the module `worker`.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from typing import Any, TypeVar

from headsweep import sockets
from headsweep.errors import UserError
from headsweep.launch.local.allocator import keeping_memory
from headsweep.processes import SAFE_PATH, exported, signals_blocked

T = TypeVar("T")
TRIES = 5  # a later try finds that the forkserver was killed, and starts another one
PAUSE_SECONDS = 0.2  # a killed process refuses connections for a moment before the system reports its end


class Processes:
    """Starts processes that have imported everything."""

    def __init__(self) -> None:
        """Start importing at once, in the background."""
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["headsweep.launch.local.preload"])
        _started(_ensure_server, tries=1)

    def ask(self, task: str, *arguments: object) -> Any:
        """Return the answer of a process to a task. Raises UserError if it ends without one, or with an error."""
        process, connection = self.start(task, *arguments)
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            process.join()
            raise UserError(f"the process of {task} ended with exit code {process.exitcode}, see above") from None
        finally:
            process.kill()  # if this process was interrupted, nothing reads the answer
        if isinstance(answer, str):
            raise UserError(answer)
        return answer

    def start(self, task: str, *arguments: object) -> tuple[ForkServerProcess, Connection]:
        """Start a process that executes a task; return it and the connection to it.

        Raises:
            UserError: the system cannot start one.
        """
        return _started(lambda: self._start(task, *arguments), TRIES)

    def _start(self, task: str, *arguments: object) -> tuple[ForkServerProcess, Connection]:
        _ensure_server()
        connection, childs = self._context.Pipe()
        with childs:
            try:
                process = self._context.Process(target=_call, args=(task, *arguments, childs))
                process.start()
            except BaseException:
                connection.close()
                raise
        return process, connection


def _ensure_server() -> None:
    # For the forkserver, and so for every run; a random.py in the working directory would end it.
    with signals_blocked(), sockets.exported(), keeping_memory(), exported(SAFE_PATH, "1"):
        ensure_running()


def _started(start: Callable[[], T], tries: int) -> T:
    try:
        return start()
    except (OSError, EOFError) as error:
        if tries > 1:
            time.sleep(PAUSE_SECONDS)
            return _started(start, tries - 1)
        advice = "raise the limits of processes, files and memory (ulimit -a), or use fewer slots"
        raise UserError(f"expected to start a process, found {error}; {advice}") from error


def _call(task: str, *arguments: Any) -> None:
    """Call a function of the worker module, which only the new process imports: it is heavy."""
    from headsweep.launch.local import preload

    if preload.failure:
        arguments[-1].send(preload.failure)
        sys.exit(1)
    getattr(preload.worker, task)(*arguments)
