"""Follow a sweep that other processes train, from its files: show it, feed MLflow, end with its table."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from headsweep.config import RunConfig
from headsweep.errors import UserError
from headsweep.launch.local.pool import LocalPool
from headsweep.launch.local.slots import Slots
from headsweep.launch.run_sweep import compare, conclude, log_models
from headsweep.plan.frozen import frozen
from headsweep.run.tracker import tracker_of
from headsweep.status.read import read_sweep
from headsweep.status.render import detail
from headsweep.status.views import RunView, SweepView
from headsweep.text import one_line
from headsweep.tracking import active_launchers
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.tracker import Tracker

LOOK_SECONDS = 3.0  # between two looks at the files, and at the cluster's queue

Show = Callable[[SweepView], None]


def follow(path: Path, asked: Sequence[RunFolder] | None = None) -> None:
    """Show the sweep in folder `path` until nobody trains it any more; then write and print its table.

    Its runs and the sweep itself are projected to MLflow meanwhile. Ctrl-C ends the following, not the sweep.

    Args:
        path: of the sweep.
        asked: the runs that are to have ended well; None: all that are planned.

    Raises:
        UserError: the sweep's plan is damaged.
        FailedRunsError: some of these runs have not ended well.
    """
    sweep = SweepFolder(path)
    folders = sweep.planned()
    config = frozen(folders[0])
    with tracker_of(config) as told:
        told.notify(sweep)
        try:
            _follow(path, told)
        except KeyboardInterrupt:
            print(f"{sweep.name} goes on without this terminal; `headsweep watch {sweep.name}` follows it again")
            sys.exit(130)
        comparison = compare(sweep)
        told.notify(sweep)
    log_models(folders, config, _log)
    conclude(sweep, folders if asked is None else asked, comparison, told, attempts=None)


def _log(folders: Sequence[RunFolder], config: RunConfig) -> int:
    """Log the models of runs from here, where there may be no torch. Raises UserError then."""
    if importlib.util.find_spec("torch") is None:
        raise UserError("no models were logged to MLflow: there is no torch here; `headsweep sync` does it where it is")
    return LocalPool(Slots(1, 1, ())).log_models(folders, config)


def _follow(sweep: Path, told: Tracker) -> None:
    console = Console(stderr=True)
    if not console.is_interactive:
        _look(sweep, told, _Lines(console))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop", transient=True) as screen:
        _look(
            sweep,
            told,
            lambda view: screen.update(Text.from_ansi(detail(view, active_launchers.find(sweep))), refresh=True),
        )


def _look(sweep: Path, told: Tracker, show: Show) -> None:
    """Look again and again, until no run is trained or queued."""
    seen: dict[Path, object] = {}
    while True:
        is_trained = bool(
            active_launchers.find(sweep)
        )  # first: who ends meanwhile has written all by the look that follows
        view = read_sweep(sweep)
        for run in view.runs:
            news = (run.label, run.epoch, run.metrics)
            if seen.get(run.folder.path) != news:
                seen[run.folder.path] = news
                told.notify(run.folder)
        show(view)
        if not is_trained and not {"running", "queued"} & view.counts.keys():
            return
        time.sleep(LOOK_SECONDS)


class _Lines:
    """A line whenever a run changes its state, where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._words: dict[Path, str] = {}

    def __call__(self, view: SweepView) -> None:
        for run in view.runs:
            if self._words.get(run.folder.path) != run.label:
                self._words[run.folder.path] = run.label
                self._console.print(one_line(_line(run)), markup=False, highlight=False, soft_wrap=True)


def _line(run: RunView) -> str:
    told = f"  {run.top1[0]} {run.top1[1]:.1%}" if run.top1 else ""
    return f"{run.name}  {run.label}{told}{f'  {run.note}' if run.note else ''}"
