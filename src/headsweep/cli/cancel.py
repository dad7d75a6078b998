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
        raise UserError(f"--wait={given:g}: expected a finite number of seconds >= 0")
    return given


@commands.command()
@click.argument("words", metavar="[SWEEP] [KEY=VALUE]...", nargs=-1)
@output_option
@click.option(
    "--wait",
    default=30.0,
    show_default=True,
    callback=_seconds,
    help="Seconds to wait until the processes have stopped.",
)
def cancel(words: tuple[str, ...], output: Path, wait: float) -> None:
    """Stop SWEEP, or all sweeps in progress, after a checkpoint.

    Processes on this machine are stopped as by Ctrl-C, and jobs in a cluster are cancelled. `headsweep retry SWEEP`
    resumes from the checkpoints. Running the command twice stops the runs at once, without a new checkpoint. SWEEP is
    the name of a sweep, a prefix of it, or "latest", the default with KEY=VALUE. `head=ga heads=8` cancels the jobs of
    these cells in a cluster.
    """
    from headsweep.status import choose, queue
    from headsweep.status.find import find_sweep
    from headsweep.tracking import active_launchers
    from headsweep.tracking.output_folder import OutputFolder

    names, conditions = choose.split(words)
    if len(names) > 1:
        raise UserError(f"{' '.join(names)}: expected the name of one sweep, found {len(names)}")
    if conditions:
        _cancel_cells(find_sweep(names[0] if names else "latest", output), conditions)
        return
    sweep = names[0] if names else None
    # A sweep whose cells are still being checked has no plan yet.
    every = sorted(path for path in OutputFolder(output).sweeps.glob("*") if path.is_dir())
    folders = every if sweep is None else [find_sweep(sweep, output)]
    cancelled = {folder: queue.cancel(folder) for folder in folders}
    for folder, found in cancelled.items():
        if text := str(found):
            click.echo(f"{folder.name}: cancelled {text}")
    busy = [folder for folder in folders if not cancelled[folder].jobs and active_launchers.find(folder)]
    if not busy and not any(map(str, cancelled.values())):
        click.echo(f"nothing to cancel: no process or job trains {folders[0].name if sweep else 'a sweep'} in {output}")
    for folder in busy:
        for launcher, outcome in active_launchers.stop(folder, wait).items():
            click.echo(one_line(f"{folder.name}: {launcher} {outcome}"))


def _cancel_cells(folder: Path, conditions: list[str]) -> None:
    """Cancel the jobs in a cluster that train chosen runs of a sweep."""
    from headsweep.status import choose, queue
    from headsweep.tracking.sweep_folder import SweepFolder

    runs = choose.chosen(SweepFolder(folder).planned(), conditions)
    if text := str(queue.cancel(folder, {run.path.name for run in runs})):
        click.echo(f"{folder.name}: cancelled {text}")
    else:
        click.echo(f"nothing to cancel: no job of {folder.name} trains {' '.join(conditions)}")
