"""A single run, trained in the process that was asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headsweep.config import RunConfig
from headsweep.errors import UserError
from headsweep.sweep.display import Display
from headsweep.sweep.plan import Cost
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.progress import Progress


class InProcess:
    """This process; torch is imported when the first run is checked or trained."""

    def check(self, runs: Sequence[RunConfig]) -> list[Cost | UserError]:
        """The cost of each run. Raises UserError for the first that cannot be built."""
        from headsweep.sweep.one_run import preflight

        return [preflight(run) for run in runs]

    def train(self, folders: Sequence[RunFolder], display: Display, changed: Callable[[RunFolder], None]) -> None:
        """Train the runs one after the other. Raises what a run raises; its folder keeps the reason."""
        from headsweep.sweep.one_run import train_folder

        for folder in folders:

            def watch(progress: Progress, folder: RunFolder = folder) -> None:
                display.progress(folder, progress)
                if progress.metrics:
                    changed(folder)

            display.started(folder)
            try:
                train_folder(folder, watch)
            finally:
                changed(folder)
            display.ended(folder)
