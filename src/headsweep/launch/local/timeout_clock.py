"""The time for which a launcher has waited for its processes, without that for which it was itself stopped."""

from __future__ import annotations

import time

LONGEST = 5.0  # seconds between two calls; longer, and the launcher was stopped, suspended or delayed


class TimeoutClock:
    """Measures the time between calls.

    Ctrl-Z stops runs and launcher together, and a laptop is suspended as a whole: a run without progress then does not
    hang. Linux's monotonic clock stands still during a suspension, but not while a process is stopped.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def passed(self) -> float:
        """Return the seconds since the last call, at most `LONGEST`."""
        before, self._last = self._last, time.monotonic()
        return min(self._last - before, LONGEST)
