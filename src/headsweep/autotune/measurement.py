"""Receive results from the processes that measure a run before training."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from headsweep.config import RunConfig
from headsweep.errors import Interrupted
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.scheduler import OUT_OF_MEMORY, POLL_SECONDS
from headsweep.launch.local.timeout_clock import TimeoutClock
from headsweep.launch.signals import StopRequest
from headsweep.text import first_line

Member = tuple[ForkServerProcess, Connection]
NO_MEMORY = "out of memory"
KILLED = -signal.SIGKILL  # exit code of a process killed by the system, as when memory runs out


class Unmeasured(Exception):  # noqa: N818 - an expected result, not an error
    """A measuring process failed; the message is the reason in one line, NO_MEMORY if memory ran out."""


def receive(member: Member, request: StopRequest, timeout: float | None = None) -> Any:
    """Return the next message of a process; `timeout` is in minutes.

    Raises:
        Unmeasured: it failed, or sent nothing in time.
        Interrupted: a stop was requested.
    """
    process, connection = member
    clock, silent = TimeoutClock(), 0.0
    while not connection.poll(POLL_SECONDS):
        if request.signal is not None:
            raise Interrupted(request.signal)
        silent += clock.passed()
        if timeout is not None and silent > 60 * timeout:
            raise Unmeasured(f"no step in {timeout:g} minutes")
    try:
        answer = connection.recv()
    except (EOFError, OSError):
        process.join()
        raise Unmeasured(
            NO_MEMORY if process.exitcode == KILLED else f"its process ended with exit code {process.exitcode}"
        ) from None
    if isinstance(answer, str):
        raise Unmeasured(NO_MEMORY if OUT_OF_MEMORY.search(answer) else first_line(answer))
    return answer


def memory(
    processes: Processes, run: RunConfig, threads: int, gpu: str | None, request: StopRequest
) -> tuple[float, int]:
    """Return the peak memory of some steps of a run, in GiB, and the images in the full batches of an epoch.

    Raises:
        Unmeasured, Interrupted: as `receive`.
    """
    member = processes.start("memory", run, threads, gpu)
    try:
        return receive(member, request)
    finally:
        member[0].kill()
        member[0].join()  # its memory is free only then
