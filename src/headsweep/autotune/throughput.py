"""How many images a second several runs train together: one run in several processes, over the same seconds."""

from __future__ import annotations

import contextlib
import time

from headsweep.autotune.measurement import Member, hear
from headsweep.config import RunConfig
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.signals import StopRequest

SECONDS = 3.0  # of a window
FEWEST_STEPS = 4  # in a window: where steps are long, it is longer
NOTICE = 0.2  # seconds until a window that is announced begins


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
            steps = [hear(member, request, self._timeout) for member in crew]
            start = time.monotonic() + NOTICE
            window = start, start + max(self._seconds, FEWEST_STEPS * max(steps))
            for _, connection in crew:
                with contextlib.suppress(OSError):  # one that has died since has nothing to say either
                    connection.send(window)
            return sum(hear(member, request, self._timeout) for member in crew)
        finally:
            for process, _ in crew:
                process.kill()
            for process, _ in crew:
                process.join()  # only then is its memory free
