"""Progress of runs: live bars on a terminal, plain lines elsewhere and where TERM=dumb."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich import progress as bars
from rich.console import Console
from rich.markup import escape

from headsweep.text import last_line, one_line
from headsweep.tracking.metric_names import TEST_TOP1, TEST_TOP5, TOP1_BY_EPOCH
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.training.progress import Progress


class Display:
    """The live screen of a sweep, or of a single run.

    Bars go to stderr, so that stdout holds results alone.
    """

    def __init__(self, runs: int, epoch_lines: bool) -> None:
        """Show `runs` runs; `epoch_lines` prints a line an epoch where there is no terminal."""
        self._console = Console(stderr=True)
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=12),  # with the longest names and notes this fits 80 columns
            bars.TaskProgressColumn(),
            bars.TimeRemainingColumn(compact=True),
            bars.TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_interactive,
        )
        self._runs, self._ended, self._epoch_lines = runs, 0, epoch_lines
        self._all = self._bars.add_task("all runs", total=runs, note="", visible=runs > 1)
        self._tasks: dict[RunFolder, bars.TaskID] = {}
        self._started: dict[RunFolder, float] = {}
        self._fractions: dict[RunFolder, float] = {}  # how much of each running run is done

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def expect(self, runs: int) -> None:
        """Count from 0 again, to `runs`."""
        self._runs, self._ended = runs, 0
        self._bars.update(self._all, total=runs, completed=0, visible=runs > 1)

    def started(self, folder: RunFolder) -> None:
        """Show a run that has got a process."""
        self._bars.start()  # not before: a launcher may print until then
        self._started[folder] = time.monotonic()
        self._tasks[folder] = self._bars.add_task(escape(one_line(folder.record().name)), total=None, note="")

    def progress(self, folder: RunFolder, progress: Progress) -> None:
        """Show that a run has taken steps, or ended an epoch."""
        task = self._tasks[folder]
        self._bars.update(task, completed=progress.step, total=progress.steps)
        self._fractions[folder] = progress.step / progress.steps
        self._bars.update(self._all, completed=self._ended + sum(self._fractions.values()))
        if not progress.metrics:
            return
        self._bars.update(task, note=_accuracy(progress.metrics))
        if self._epoch_lines and not self._console.is_interactive:
            self.say(f"epoch {progress.epoch}/{progress.epochs}  {_shown(progress.metrics)}")

    def ended(self, folder: RunFolder) -> None:
        """Count a run that is over, here or in another command, and print its outcome."""
        self._ended += 1
        started = self._started.get(folder)
        self.left(folder)
        took = "in another command" if started is None else f"{time.monotonic() - started:.0f} s"
        self.say(f"[{self._ended}/{self._runs}] {folder.record().name}  {_outcome(folder)}  ({took})")

    def left(self, folder: RunFolder) -> None:
        """Hide a run that has no process any more."""
        if folder in self._tasks:
            self._bars.remove_task(self._tasks.pop(folder))
        self._started.pop(folder, None)
        self._fractions.pop(folder, None)
        self._bars.update(self._all, completed=self._ended + sum(self._fractions.values()))

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


def _outcome(folder: RunFolder) -> str:
    state, result = folder.state(), folder.result()
    if result is None:
        failure = folder.failure()
        return _stopped(folder) if failure is None else f"{state.value}: {last_line(failure)}"
    if state is RunState.diverged:
        return f"diverged: {result.note}"
    return _shown({key: value for key, value in result.metrics.items() if key in (TEST_TOP1, TEST_TOP5)})


def _stopped(folder: RunFolder) -> str:
    entries = folder.metrics_log.entries()
    return f"stopped after epoch {entries[-1].epoch}  {_accuracy(entries[-1].metrics)}" if entries else "was stopped"


def _accuracy(metrics: Mapping[str, float]) -> str:
    return _shown({key: value for key, value in metrics.items() if key in TOP1_BY_EPOCH})


def _shown(metrics: Mapping[str, float]) -> str:
    """Return metrics as text, without those of single heads."""
    shown = {key: value for key, value in metrics.items() if key.count("/") == 1}
    return "  ".join(
        f"{key} {value:.1%}" if key.rpartition("/")[2].startswith("top") else f"{key} {value:.4f}"
        for key, value in shown.items()
    )
