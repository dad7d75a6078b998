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
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
def status(sweep: str | None, output: Path, watch: bool) -> None:
    """Show how far sweeps are: a line each, or of SWEEP a line a run.

    SWEEP is a sweep's name, the beginning of it, or "latest".
    """
    from headsweep.status.render import show

    if watch:
        _watch(lambda: show(sweep, output))
    else:
        click.echo(show(sweep, output))


def _watch(look: Callable[[], str]) -> None:
    if not sys.stdout.isatty():
        raise UserError("--watch: the output is no terminal; look once, without --watch")
    from rich.live import Live
    from rich.text import Text

    with contextlib.suppress(KeyboardInterrupt), Live(auto_refresh=False, vertical_overflow="crop") as screen:
        while not console.is_broken():
            screen.update(Text.from_ansi(look()), refresh=True)
            time.sleep(REFRESH_SECONDS)
