"""The state of sweeps and runs in lines of text, as `headsweep status` prints them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.cells import cell_len

from headsweep.status.views import (
    STARTING,
    RunView,
    SweepView,
    find_sweep,
    read_run,
    read_sweep,
    read_sweeps,
    sweep_folders,
)
from headsweep.text import one_line
from headsweep.tracking.active_launchers import Launcher, find
from headsweep.tracking.run_folder import RunFolder

CLOCK_SKEW = 60.0  # seconds by which another machine's clock, or a file server's, may be ahead
COLORS = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "diverged": "yellow",
    "damaged": "red",
    "lost": "red",
}


def show(name: str | None, output: Path) -> str:
    """The sweep `name` (see `find_sweep`), or all sweeps, in the outputs folder.

    Raises:
        UserError: there is no such sweep.
    """
    if name is not None:
        folder = find_sweep(name, output)
        return detail(read_sweep(folder), find(folder))
    folders = sweep_folders(output)
    return overview(read_sweeps(folders)) if folders else f"no sweep in {output} yet; {STARTING}"


def summary(folder: RunFolder) -> str:
    """A run in a line."""
    run = read_run(folder)
    epoch, top1, _ = _numbers(run)
    return one_line(f"{folder.path.name}  {run.word}, epoch {epoch}, top-1 {top1}  {_named(run)}")


def overview(sweeps: Sequence[SweepView]) -> str:
    """A line a sweep, newest first."""
    newest = sorted(sweeps, key=lambda sweep: sweep.active, reverse=True)
    rows = [("SWEEP", "RUNS", "BEST SO FAR", "ACTIVE")]
    rows += [(sweep.name, sweep.note or _counted(sweep), _best(sweep), _activity(sweep)) for sweep in newest]
    return aligned(rows)


def detail(sweep: SweepView, launchers: Sequence[Launcher]) -> str:
    """Totals of a sweep, who trains it, and a line a run."""
    heading = [f"{sweep.name}: {sweep.note or _counted(sweep)}"]
    heading += [f"best so far: {_best(sweep)}"] if sweep.best else []
    heading += [f"active: {_activity(sweep)}"]
    heading += [f"{launcher} since {_clock(launcher.started)}: {launcher.command}" for launcher in launchers]
    rows = [("RUN", "STATE", "EPOCH", "TOP-1", "IMAGES/S", "NAME")]
    rows += [(run.folder.path.name, run.word, *_numbers(run), _named(run)) for run in sweep.runs]
    return "\n".join([*map(one_line, heading), "", aligned(rows, state=1)])


def _counted(sweep: SweepView) -> str:
    return f"{len(sweep.runs)} run{'s' if len(sweep.runs) != 1 else ''}: " + ", ".join(
        f"{count} {word}" for word, count in sweep.counts.items()
    )


def _best(sweep: SweepView) -> str:
    best = sweep.best
    return f"{best.top1[0]} {best.top1[1]:.1%} ({best.name})" if best and best.top1 else "-"


def _activity(sweep: SweepView) -> str:
    if "running" not in sweep.counts:
        since = time.time() - sweep.active
        return f"{_span(since)} ago" if since > -CLOCK_SKEW else "unknown (its last sign of life is in the future)"
    left = sweep.seconds_left()
    return "now" if left is None else f"now, {_span(left)} left"


def _numbers(run: RunView) -> tuple[str, str, str]:
    epochs = "?" if run.epochs is None else run.epochs
    return (
        f"{run.epoch}/{epochs}",
        f"{run.top1[1]:.1%}" if run.top1 else "-",
        f"{run.images_per_second:.0f}" if run.images_per_second else "-",
    )


def _named(run: RunView) -> str:
    return f"{run.name}  {run.note}" if run.note else run.name


def aligned(rows: Sequence[Sequence[str]], state: int | None = None) -> str:
    """Rows as columns two spaces apart; the column of states in colour, which `click.echo` drops outside a terminal."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row[:-1], widths, strict=False)]
        if state is not None and _is_coloured():
            cells[state] = click.style(cells[state], fg=COLORS.get(row[state]))
        lines.append("  ".join([*cells, row[-1]]))
    return "\n".join(lines)


def _is_coloured() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _span(seconds: float) -> str:
    """A time span in its two largest units."""
    whole = max(0, round(seconds))  # a file system's clock may be a little ahead of this machine's
    for unit, size, smaller in (("d", 86400, "h"), ("h", 3600, "min"), ("min", 60, "s")):
        if whole >= size:
            part = {"h": 3600, "min": 60, "s": 1}[smaller]
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"
