"""Stopping on Ctrl-C or SIGTERM: the first asks, the second insists."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

from headsweep.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within its block, the first SIGINT or SIGTERM is remembered; one more raises Interrupted at once."""

    def __init__(self) -> None:
        self.signal: int | None = None  # the one that asked
        self._process = os.getpid()

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def made(self) -> bool:
        """Has anyone asked?"""
        return self.signal is not None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked from this one, e.g. to decode images: ended by it in good time
            return
        if self.signal is not None:
            raise Interrupted(number)
        self.signal = number
