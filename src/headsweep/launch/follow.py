"""Follow a sweep that other processes train, from its files: show it, feed the tracker, end with its table."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from headsweep.errors import UserError
from headsweep.launch.conclude import LogModels, compare, conclude, log_models, show
from headsweep.plan.frozen import frozen
from headsweep.status import waiting
from headsweep.status.job_state import HELD
from headsweep.status.read import read_sweep
from headsweep.status.render import detail
from headsweep.status.views import RunView, SweepView
from headsweep.text import one_line
from headsweep.tracking import active_launchers
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.tracker import Tracker
from headsweep.tracking.trackers import tracker_of

REFILL_SECONDS = 60.0  # between two attempts to submit more jobs while nothing changes
POLL_SECONDS = 3.0  # between two readings of the files, and of the cluster's queue

Show = Callable[[SweepView], None]
Refill = Callable[[Path], None]  # submits jobs for runs of a sweep that wait until more may be in a cluster's queue


def follow(path: Path, log: LogModels, refill: Refill, asked: Sequence[RunFolder] | None = None) -> None:
    """Show the sweep in folder `path` until no process trains it any more; then write and print its table.

    Its runs and the sweep itself are copied to the tracker meanwhile. Ctrl-C ends the following, not the sweep.

    Args:
        path: of the sweep.
        log: logs the runs' models.
        refill: starts runs that wait until more jobs may be in a cluster's queue.
        asked: the runs that are to have ended well; None: all that are planned.

    Raises:
        UserError: the sweep's plan is damaged.
        FailedRunsError: some of these runs have not ended well.
    """
    sweep = SweepFolder(path)
    folders = sweep.planned()
    config = frozen(folders[0])
    with tracker_of(config) as tracker:
        tracker.notify(sweep)
        try:
            _follow(path, tracker, _Refill(path, refill))
        except KeyboardInterrupt:
            print(f"{sweep.name} goes on without this terminal; `headsweep watch {sweep.name}` follows it again")
            sys.exit(130)
        comparison = compare(sweep)
        tracker.notify(sweep)
    log_models(folders, config, log)
    show(sweep, comparison, tracker)
    conclude(sweep, folders if asked is None else asked, attempts=None)


def _follow(sweep: Path, tracker: Tracker, start_more: _Refill) -> None:
    console = Console(stderr=True)
    if not console.is_interactive:
        _poll(sweep, tracker, start_more, _Lines(console))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop", transient=True) as screen:

        def show(view: SweepView) -> None:
            screen.update(Text.from_ansi(detail(view, active_launchers.find(sweep))), refresh=True)

        _poll(sweep, tracker, start_more, show)


def _poll(sweep: Path, tracker: Tracker, start_more: _Refill, show: Show) -> None:
    """Read the sweep again and again, until no run is trained or queued."""
    seen: dict[Path, object] = {}
    while True:
        # Before the files: a process that ends in between has written everything that is read below.
        is_trained = bool(active_launchers.find(sweep))
        view = read_sweep(sweep)
        for run in view.runs:
            news = (run.state, run.epoch, run.metrics)
            if seen.get(run.folder.path) != news:
                seen[run.folder.path] = news
                tracker.notify(run.folder)
        show(view)
        start_more(view)
        if not is_trained and not {RunState.running, RunState.queued} & view.counts.keys():
            return
        time.sleep(POLL_SECONDS)


class _Refill:
    """Starts runs that wait until more jobs may be in a cluster's queue: after each change, and now and then."""

    def __init__(self, sweep: Path, refill: Refill) -> None:
        self._sweep, self._refill, self._next = sweep, refill, 0.0
        self._counts: object = None
        self._last: set[str] = set()  # lines of the last attempt

    def __call__(self, view: SweepView) -> None:
        if waiting.file_of(self._sweep).exists() and (view.counts != self._counts or time.monotonic() > self._next):
            self._counts, self._next = view.counts, time.monotonic() + REFILL_SECONDS
            self._attempt()

    def _attempt(self) -> None:
        """Submit what may be; of its lines print those that the last attempt, which may have found no room, did not."""
        before, printed, errors = self._last, io.StringIO(), []
        try:
            with contextlib.redirect_stdout(printed):
                self._refill(self._sweep)
        except UserError as error:  # perhaps the cluster does not answer now
            errors = [f"headsweep: {error}; tried again every {REFILL_SECONDS:.0f} s"]
        finally:  # Ctrl-C may come between two jobs
            lines = printed.getvalue().splitlines()
            self._last = {*lines, *errors}
            for line in (line for line in lines if line not in before):
                print(line)
        for line in (line for line in errors if line not in before):
            print(line, file=sys.stderr)


class _Lines:
    """Prints a line for each change of a run's state, or if its job is held, where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[Path, tuple[RunState, bool]] = {}

    def __call__(self, view: SweepView) -> None:
        for run in view.runs:
            news = (run.state, HELD in run.note)
            if self._shown.get(run.folder.path) != news:
                self._shown[run.folder.path] = news
                self._console.print(one_line(_line(run)), markup=False, highlight=False, soft_wrap=True)


def _line(run: RunView) -> str:
    top1 = f"  {run.top1[0]} {run.top1[1]:.1%}" if run.top1 else ""
    return f"{run.name}  {run.state.value}{top1}{f'  {run.note}' if run.note else ''}"
