"""Stopping on a signal: the first asks, the second insists.

A terminal that is closed sends SIGHUP, often twice, from the kernel and from the shell: it asks, and never insists.
`nohup` has it ignored, and so it stays.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType, TracebackType

from headsweep.errors import Interrupted
from headsweep.processes import answered

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Within its block, signals are remembered; one more than the first raises Interrupted at once, if `insistent`."""

    def __init__(self, signals: Sequence[int] = SIGNALS, insistent: bool = True) -> None:
        self.heard: list[int] = []
        self._signals, self._insistent = signals, insistent

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._hear) for number in answered(self._signals)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def made(self) -> bool:
        """Has anyone asked?"""
        return bool(self.heard)

    @property
    def signal(self) -> int | None:
        """The first one that asked."""
        return self.heard[0] if self.heard else None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard and self._insistent and number != signal.SIGHUP:
            raise Interrupted(number)
        self.heard.append(number)
