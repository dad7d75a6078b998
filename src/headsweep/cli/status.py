"""`headsweep status`: the progress of sweeps."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from headsweep import console
from headsweep.cli.group import commands, output_option
from headsweep.errors import UserError

REFRESH_SECONDS = 2.0


@commands.command()
@click.argument("sweep", required=False)
@output_option
@click.option("--watch", is_flag=True, help="Refresh every two seconds, until Ctrl-C.")
@click.option("--efficiency", is_flag=True, help="Show what the SLURM jobs of SWEEP used of what they asked for.")
def status(sweep: str | None, output: Path, watch: bool, efficiency: bool) -> None:
    """Show sweep progress, or per-run progress of SWEEP.

    SWEEP is the name of a sweep, a prefix of it, or "latest".
    """
    if efficiency:
        from headsweep.status.efficiency import show
    else:
        from headsweep.status.render import show

    if watch:
        _watch(lambda: show(sweep, output))
    else:
        click.echo(show(sweep, output))


def _watch(render: Callable[[], str]) -> None:
    if not sys.stdout.isatty():
        raise UserError("--watch: expected a terminal as the output; run it without --watch")
    from rich.live import Live
    from rich.text import Text

    with contextlib.suppress(KeyboardInterrupt), Live(auto_refresh=False, vertical_overflow="crop") as screen:
        while not console.is_broken():
            screen.update(Text.from_ansi(render()), refresh=True)
            time.sleep(REFRESH_SECONDS)
