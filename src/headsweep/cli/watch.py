"""`headsweep watch`: follow a sweep that other processes train."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import commands, output_option


@commands.command()
@click.argument("sweep", default="latest")
@output_option
def watch(sweep: str, output: Path) -> None:
    """Follow SWEEP until it has ended, feed MLflow meanwhile, and print its table.

    SWEEP is as in `status`. Ctrl-C ends the following, not the sweep.
    """
    from headsweep.status.views import find_sweep

    folder = find_sweep(sweep, output)
    from headsweep.launch.follow import follow
    from headsweep.launch.local.pool import log_models

    follow(folder.resolve(), log_models)
