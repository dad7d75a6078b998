"""`headsweep logs`: the output of a run."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep import console
from headsweep.cli.group import commands, output_option
from headsweep.text import lines

if TYPE_CHECKING:
    from headsweep.tracking.run_folder import RunFolder

FOLLOW_SECONDS = 0.2


@commands.command()
@click.argument("run")
@output_option
@click.option("-f", "--follow", is_flag=True, help="Keep printing new output until the run ends.")
def logs(run: str, output: Path, follow: bool) -> None:
    """Show the output of RUN and, if it failed, the error.

    RUN is the fingerprint or name of a run, a prefix of one, or its folder.
    """
    from headsweep.status.find import find_run
    from headsweep.status.render import summary

    folder = find_run(run, output)
    with contextlib.suppress(KeyboardInterrupt):
        _print_log(folder, follow)
    click.echo(summary(folder), err=True)


def _print_log(folder: RunFolder, follow: bool) -> None:
    from headsweep.status import queue
    from headsweep.status.read import is_going_on

    shown = 0
    while True:
        ended = not (follow and is_going_on(folder))  # first, so that its last output is read below
        source = folder.log if folder.log.exists() else queue.printed(folder)  # of a job that never started the run
        text = source.read_bytes() if source else b""
        complete = text if ended else text[: text.rfind(b"\n") + 1]  # a partial line may end within a character
        click.echo(lines(complete[shown:].decode(errors="replace")), nl=False)
        shown = len(complete)
        if ended or console.is_broken():
            break
        time.sleep(FOLLOW_SECONDS)
    failure = folder.failure() or ""
    if failure.strip().rpartition("\n")[2].encode() not in text:
        click.echo(lines(failure), nl=False)
