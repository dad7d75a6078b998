"""`headsweep cancel`: stop the training of a sweep."""

from __future__ import annotations

import math
from pathlib import Path

import click

from headsweep.cli.group import commands, output_option
from headsweep.errors import UserError
from headsweep.text import one_line


def _seconds(context: click.Context, option: click.Parameter, given: float) -> float:
    if not (math.isfinite(given) and given >= 0):
        raise UserError(f"--wait={given:g}: expected a finite number of seconds, at least 0")
    return given


@commands.command()
@click.argument("sweep", required=False)
@output_option
@click.option("--wait", default=30.0, show_default=True, callback=_seconds, help="Seconds to wait for the end.")
def cancel(sweep: str | None, output: Path, wait: float) -> None:
    """Stop the training of SWEEP, here as Ctrl-C would, or its jobs; `headsweep retry SWEEP` goes on from there.

    SWEEP is as in `status`; without it, all sweeps that are being trained. Given twice, runs stop at once, without
    saving what they have done since their last checkpoint.
    """
    from headsweep.status import queue
    from headsweep.status.views import find_sweep
    from headsweep.tracking import active_launchers

    # One whose cells are still being checked has no plan yet.
    folders = sorted((output / "sweeps").glob("*")) if sweep is None else [find_sweep(sweep, output)]
    cancelled = {folder: queue.cancel(folder) for folder in folders}
    for folder, jobs in cancelled.items():
        if jobs:
            click.echo(f"{folder.name}: cancelled job{'s' * (len(jobs) > 1)} {', '.join(jobs)}")
    busy = [folder for folder in folders if not cancelled[folder] and active_launchers.find(folder)]
    if not busy and not any(cancelled.values()):
        click.echo(f"nothing to cancel: no process trains {folders[0].name if sweep else 'a sweep'} in {output}")
    for folder in busy:
        for launcher, outcome in active_launchers.stop(folder, wait).items():
            click.echo(one_line(f"{folder.name}: {launcher} {outcome}"))
