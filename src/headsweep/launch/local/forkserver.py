"""Processes from a forkserver that has imported everything once: each starts in a fraction of a second.

They are deaf to the signals that the launcher answers, and execute the functions of the module `worker`.
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
from headsweep.processes import born_deaf

T = TypeVar("T")
TRIES = 5  # a later one finds that the forkserver was killed, and starts another
PAUSE_SECONDS = 0.2  # a killed process refuses connections for a moment before the system reports its end


class Processes:
    """A source of processes that can compute."""

    def __init__(self) -> None:
        """Start importing at once, in the background."""
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["headsweep.launch.local.preload"])
        _started(_ensure_server, tries=1)

    def ask(self, task: str, *arguments: object) -> Any:
        """What a process says to a task. Raises UserError if it ends without a word, or says only why it failed."""
        process, connection = self.start(task, *arguments)
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            process.join()
            raise UserError(f"the process of {task} ended with exit code {process.exitcode}, see above") from None
        finally:
            process.kill()  # when it is interrupted it has nobody to answer to
        if isinstance(answer, str):
            raise UserError(answer)
        return answer

    def start(self, task: str, *arguments: object) -> tuple[ForkServerProcess, Connection]:
        """A process that executes a task, and the connection to it.

        Raises:
            UserError: the system gives no process.
        """
        return _started(lambda: self._start(task, *arguments), TRIES)

    def _start(self, task: str, *arguments: object) -> tuple[ForkServerProcess, Connection]:
        _ensure_server()
        ours, theirs = self._context.Pipe()
        with theirs:
            try:
                process = self._context.Process(target=_call, args=(task, *arguments, theirs))
                process.start()
            except BaseException:
                ours.close()
                raise
        return process, ours


def _ensure_server() -> None:
    with born_deaf(), sockets.told():  # the forkserver, and with it every run
        ensure_running()


def _started(start: Callable[[], T], tries: int) -> T:
    try:
        return start()
    except (OSError, EOFError) as error:
        if tries > 1:
            time.sleep(PAUSE_SECONDS)
            return _started(start, tries - 1)
        want = "expected processes, files and memory to be left (ulimit -a); raise the limit, or use fewer slots"
        raise UserError(f"no process can be started ({error}): {want}") from error


def _call(task: str, *arguments: Any) -> None:
    """Name a function of the worker module, which only the new process imports: it is heavy."""
    from headsweep.launch.local import preload

    if preload.failure:
        arguments[-1].send(preload.failure)
        sys.exit(1)
    getattr(preload.worker, task)(*arguments)
