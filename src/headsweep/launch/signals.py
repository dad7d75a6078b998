"""Stopping on a signal: the first one asks runs to write checkpoints, the second one stops at once.

A closed terminal sends SIGHUP, often twice, from the kernel and from the shell: it counts as a first signal only. Under
`nohup` it stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType, TracebackType

from headsweep.errors import Interrupted
from headsweep.processes import not_ignored

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Records signals within its block; a second one raises Interrupted at once if `insistent`."""

    def __init__(self, signals: Sequence[int] = SIGNALS, insistent: bool = True) -> None:
        self.received: list[int] = []
        self._signals, self._insistent = signals, insistent

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._handle) for number in not_ignored(self._signals)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def made(self) -> bool:
        """Return whether a signal has been received."""
        return bool(self.received)

    @property
    def signal(self) -> int | None:
        """The first signal that was received."""
        return self.received[0] if self.received else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and self._insistent and number != signal.SIGHUP:
            raise Interrupted(number)
        self.received.append(number)
