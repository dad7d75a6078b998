"""A single run, trained in the process that was asked for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from headsweep.config import RunConfig
from headsweep.errors import Interrupted, UserError
from headsweep.sweep.display import Display
from headsweep.sweep.plan import Cost
from headsweep.sweep.stopping import StopRequest
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.progress import Busy, Progress, Stopped

POLL_SECONDS = 0.5


class InProcess:
    """This process; torch is imported when the first run is checked or trained."""

    def check(self, runs: Sequence[RunConfig]) -> list[Cost | UserError]:
        """The cost of each run. Raises UserError for the first that cannot be built."""
        from headsweep.sweep.one_run import preflight

        return [preflight(run) for run in runs]

    def train(self, folders: Sequence[RunFolder], display: Display, changed: Callable[[RunFolder], None]) -> None:
        """Train the runs one after the other. Raises what a run raises; its folder keeps the reason."""
        for folder in folders:

            def watch(progress: Progress, folder: RunFolder = folder) -> None:
                display.progress(folder, progress)
                if progress.metrics:
                    changed(folder)

            display.started(folder)
            try:
                _train(folder, watch)
            finally:
                changed(folder)
            display.ended(folder)


def _train(folder: RunFolder, watch: Callable[[Progress], None]) -> None:
    from headsweep.sweep.one_run import train_folder

    with StopRequest() as request:
        while True:
            try:
                return train_folder(folder, watch, request.made)
            except Busy:  # another command trains it: wait for that
                time.sleep(POLL_SECONDS)
            except Stopped:
                pass
            if request.signal is not None:
                raise Interrupted(request.signal)
