"""How many images a second several runs train together: one run in several processes, over the same seconds."""

from __future__ import annotations

import contextlib
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from headsweep.config import RunConfig
from headsweep.errors import Interrupted
from headsweep.sweep.processes import Processes
from headsweep.sweep.schedule import OUT_OF_MEMORY, POLL_SECONDS
from headsweep.sweep.stopping import StopRequest

SECONDS = 3.0  # of a window
FEWEST_STEPS = 4  # in a window: where steps are long, it is longer
NOTICE = 0.2  # seconds until a window that is announced begins

Member = tuple[ForkServerProcess, Connection]


class Unmeasured(Exception):  # noqa: N818 - for who measures it is an answer
    """A process of the measurement has failed; the message says why, in a line."""


class Throughput:
    """Measures one run; nothing is written to its folder or to MLflow."""

    def __init__(
        self,
        processes: Processes,
        run: RunConfig,
        gpu: str | None,
        timeout: float | None = None,
        seconds: float = SECONDS,
    ) -> None:
        """Measure `run`, whose data has been looked at, on a GPU or the CPU; `timeout` is minutes without an answer."""
        self._processes, self._run, self._gpu = processes, run, gpu
        self._timeout, self._seconds = timeout, seconds

    def images_per_second(self, count: int, threads: int, request: StopRequest) -> float:
        """Of `count` processes, each with so many CPU threads, together.

        Raises:
            Unmeasured: one of them has failed.
            Interrupted: someone asked to stop.
        """
        crew: list[Member] = []
        try:
            for _ in range(count):
                crew.append(self._processes.start("speed", self._run, threads, self._gpu))
            steps = [self._hear(member, request) for member in crew]
            start = time.monotonic() + NOTICE
            window = start, start + max(self._seconds, FEWEST_STEPS * max(steps))
            for _, connection in crew:
                with contextlib.suppress(OSError):  # one that has died since has nothing to say either
                    connection.send(window)
            return sum(self._hear(member, request) for member in crew)
        finally:
            for process, _ in crew:
                process.kill()
            for process, _ in crew:
                process.join()  # only then is its memory free

    def _hear(self, member: Member, request: StopRequest) -> float:
        """The next number that a process says."""
        process, connection = member
        begun = time.monotonic()
        while not connection.poll(POLL_SECONDS):
            if request.signal is not None:
                raise Interrupted(request.signal)
            if self._timeout is not None and time.monotonic() - begun > 60 * self._timeout:
                raise Unmeasured(f"no step in {self._timeout:g} minutes")
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            process.join()
            raise Unmeasured(_ended(process.exitcode)) from None
        if isinstance(answer, str):
            raise Unmeasured("out of memory" if OUT_OF_MEMORY.search(answer) else answer)
        return float(answer)


def _ended(code: int | None) -> str:
    return "killed, perhaps for want of memory" if code == -9 else f"its process ended with exit code {code}"
