"""`headsweep watch`: follow a sweep that other processes train."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import commands, output_option


@commands.command()
@click.argument("sweep", default="latest")
@output_option
def watch(sweep: str, output: Path) -> None:
    """Follow SWEEP until it ends, then print its table.

    Meanwhile its metrics are sent to MLflow, and jobs are submitted for runs that wait until more may be in the queue
    of a cluster. SWEEP is the name of a sweep, a prefix of it, or "latest", the default. Ctrl-C stops this command, not
    the sweep.
    """
    from headsweep.status.find import find_sweep

    folder = find_sweep(sweep, output)
    from headsweep.launch.follow import follow
    from headsweep.launch.local.pool import log_models

    follow(folder.resolve(), log_models, _refill)


def _refill(sweep: Path) -> None:
    from headsweep.launch.slurm.window import refill  # imports submitit

    refill(sweep)
