"""How long a launcher has listened to its processes: what passes while it is stopped does not count."""

from __future__ import annotations

import time

LONGEST = 5.0  # seconds; longer between two looks, and the launcher was stopped, suspended or held up


class ListeningClock:
    """Measures the time between looks.

    Ctrl-Z stops runs and launcher together, and a laptop is suspended as a whole: a run that is silent then does not
    hang. The monotonic clock of Linux stands still during a suspension, but not while a process is stopped.
    """

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def passed(self) -> float:
        """Return the seconds since the last look, at most `LONGEST`."""
        before, self._looked = self._looked, time.monotonic()
        return min(self._looked - before, LONGEST)
