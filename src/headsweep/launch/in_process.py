"""Runs trained in this process, one after the other."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from headsweep.config import RunConfig
from headsweep.errors import Interrupted, UserError
from headsweep.launch.launcher import Launcher, Notify
from headsweep.launch.progress_bars import Display
from headsweep.launch.signals import StopRequest
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.progress import Busy, Progress, Stopped

if TYPE_CHECKING:
    from headsweep.training.ranks import Ranks

POLL_SECONDS = 0.5  # between two tries of a run that another command trains


class InProcess(Launcher):
    """This process; torch is imported when the first run is checked or trained."""

    def __init__(self, ranks: Ranks | None = None, request: StopRequest | None = None) -> None:
        """Lead `ranks`, if there are others; `request` is one whose block has begun already, as in `Schedule`."""
        self._ranks = ranks
        self._request = nullcontext(request) if request else StopRequest()

    def check(self, runs: Sequence[RunConfig]) -> list[RunCost | UserError]:
        """Return the cost of each run. Raises UserError for the first that cannot be built, or trained here."""
        from headsweep.run.train_run import check_here, preflight

        costs: list[RunCost | UserError] = [preflight(run) for run in runs]
        for run in runs:
            check_here(run)
        return costs

    def start(self, missing: Sequence[RunFolder], display: Display, notify: Notify) -> None:
        """Train the runs one after the other. Raises what a run raises; its folder has the reason."""
        for folder in missing:

            def watch(progress: Progress, folder: RunFolder = folder) -> None:
                display.progress(folder, progress)
                if progress.metrics:
                    notify(folder)

            display.started(folder)
            try:
                self._train(folder, watch)
            finally:
                notify(folder)
            display.ended(folder)

    def _train(self, folder: RunFolder, watch: Callable[[Progress], None]) -> None:
        from headsweep.run.train_run import train_folder
        from headsweep.training.ranks import ALONE

        with self._request as request:
            while True:
                try:
                    return train_folder(folder, watch, request.made, ranks=self._ranks or ALONE)
                except Busy:  # another command trains it
                    time.sleep(POLL_SECONDS)
                except Stopped:  # perhaps the signal reached another rank
                    raise Interrupted(request.signal or signal.SIGTERM) from None
                if request.signal is not None:
                    raise Interrupted(request.signal)
