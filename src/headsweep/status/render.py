"""The progress of sweeps and runs in lines of text, as `headsweep status` prints them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from headsweep.status.find import NO_RUNS_YET, find_sweep, sweep_folders
from headsweep.status.read import read_run, read_sweep, read_sweeps
from headsweep.status.views import RunView, SweepView
from headsweep.text import aligned, one_line, plural
from headsweep.tracking import active_launchers
from headsweep.tracking.active_launchers import LauncherProcess
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged

CLOCK_SKEW = 60.0  # seconds by which another machine's clock, or a file server's, may be ahead
COLORS = {
    RunState.running.value: "cyan",
    RunState.finished.value: "green",
    RunState.failed.value: "red",
    RunState.diverged.value: "yellow",
    RunState.damaged.value: "red",
    RunState.lost.value: "red",
}


def show(name: str | None, output: Path) -> str:
    """Return the sweep `name` (see `find_sweep`), or all sweeps, of the output folder.

    Raises:
        UserError: there is no such sweep.
    """
    if name is not None:
        folder = find_sweep(name, output)
        return detail(read_sweep(folder), active_launchers.find(folder), _tracked(folder))
    folders = sweep_folders(output)
    return overview(read_sweeps(folders)) if folders else f"no sweep in {output} yet; {NO_RUNS_YET}"


def summary(folder: RunFolder) -> str:
    """Return a run in a line."""
    run = read_run(folder)
    epoch, top1, _ = _numbers(run)
    return one_line(f"{folder.path.name}  {run.state.value}, epoch {epoch}, top-1 {top1}  {_name_and_note(run)}")


def overview(sweeps: Sequence[SweepView]) -> str:
    """Return a line a sweep, newest first."""
    newest = sorted(sweeps, key=lambda sweep: sweep.active, reverse=True)
    rows = [("SWEEP", "RUNS", "BEST SO FAR", "ACTIVE")]
    rows += [(sweep.name, sweep.note or _counts(sweep), _best(sweep), _activity(sweep)) for sweep in newest]
    return aligned(rows)


def detail(sweep: SweepView, launchers: Sequence[LauncherProcess], tracked: str | None = None) -> str:
    """Return the totals of a sweep, where a tracker has it, the processes that train it, and a line a run."""
    heading = [f"{sweep.name}: {sweep.note or _counts(sweep)}"]
    heading += [f"best so far: {_best(sweep)}"] if sweep.best else []
    heading += [f"active: {_activity(sweep)}"]
    heading += [f"MLflow: {tracked}"] if tracked else []
    heading += [f"{launcher} since {_local_time(launcher.started)}: {launcher.command}" for launcher in launchers]
    rows = [("RUN", "STATE", "EPOCH", "TOP-1", "IMAGES/S", "NAME")]
    rows += [(run.folder.path.name, run.state.value, *_numbers(run), _name_and_note(run)) for run in sweep.runs]
    return "\n".join([*map(one_line, heading), "", aligned(rows, {1: COLORS})])


def _tracked(sweep: Path) -> str | None:
    """Return where a tracker has a sweep, or the damage to the file that names it."""
    from headsweep.tracking.trackers import tracked_as  # imported here because only this view needs it

    try:
        return tracked_as(SweepFolder(sweep))
    except Damaged as error:
        return str(error)


def _counts(sweep: SweepView) -> str:
    return f"{plural(len(sweep.runs), 'run')}: " + ", ".join(
        f"{count} {state.value}" for state, count in sweep.counts.items()
    )


def _best(sweep: SweepView) -> str:
    best = sweep.best
    return f"{best.top1[0]} {best.top1[1]:.1%} ({best.name})" if best and best.top1 else "-"


def _activity(sweep: SweepView) -> str:
    if RunState.running not in sweep.counts:
        since = time.time() - sweep.active
        return f"{_duration(since)} ago" if since > -CLOCK_SKEW else "unknown (its last change is in the future)"
    left = sweep.seconds_left()
    return "now" if left is None else f"now, {_duration(left)} left"


def _numbers(run: RunView) -> tuple[str, str, str]:
    epochs = "?" if run.epochs is None else run.epochs
    return (
        f"{run.epoch}/{epochs}",
        f"{run.top1[1]:.1%}" if run.top1 else "-",
        f"{run.images_per_second:.0f}" if run.images_per_second else "-",
    )


def _name_and_note(run: RunView) -> str:
    return f"{run.name}  {run.note}" if run.note else run.name


def _local_time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    whole = max(0, round(seconds))  # a file system's clock may be a little ahead of this machine's
    for unit, size, smaller in (("d", 86400, "h"), ("h", 3600, "min"), ("min", 60, "s")):
        if whole >= size:
            part = {"h": 3600, "min": 60, "s": 1}[smaller]
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"
