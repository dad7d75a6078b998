"""Measure the images per second of several concurrent runs: one run in several processes, over one time window."""

from __future__ import annotations

import contextlib
import time

from headsweep.autotune.measurement import Member, receive
from headsweep.config import RunConfig
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.signals import StopRequest

SECONDS = 3.0  # length of the window
FEWEST_STEPS = 4  # in a window, which is longer where steps are long
NOTICE = 0.2  # seconds from sending the window to its start


class Throughput:
    """Measure one run; nothing is written to its folder or to a tracker."""

    def __init__(
        self,
        processes: Processes,
        run: RunConfig,
        gpu: str | None,
        timeout: float | None = None,
        seconds: float = SECONDS,
    ) -> None:
        """Measure `run`, whose data is resolved, on a GPU or the CPU; `timeout` is in minutes without a message."""
        self._processes, self._run, self._gpu = processes, run, gpu
        self._timeout, self._seconds = timeout, seconds

    def images_per_second(self, count: int, threads: int, request: StopRequest) -> float:
        """Return the total of `count` processes, each with `threads` CPU threads.

        Raises:
            Unmeasured: one of them failed.
            Interrupted: a stop was requested.
        """
        members: list[Member] = []
        try:
            for _ in range(count):
                members.append(self._processes.start("speed", self._run, threads, self._gpu))
            steps = [receive(member, request, self._timeout) for member in members]
            start = time.monotonic() + NOTICE
            window = start, start + max(self._seconds, FEWEST_STEPS * max(steps))
            for _, connection in members:
                with contextlib.suppress(OSError):  # one that died since is found by receive
                    connection.send(window)
            return sum(receive(member, request, self._timeout) for member in members)
        finally:
            for process, _ in members:
                process.kill()
            for process, _ in members:
                process.join()  # its memory is free only then
