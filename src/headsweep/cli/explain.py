"""`headsweep explain`: where a number comes from."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import commands, end_incomplete, output_option
from headsweep.text import lines


@commands.command()
@click.argument("cell", nargs=-1, required=True)
@click.option("--sweep", help='Its name, the beginning of it, or "latest", which it is unless CELL is a fingerprint.')
@output_option
def explain(cell: tuple[str, ...], sweep: str | None, output: Path) -> None:
    """Say where the numbers of CELL come from: runs, seeds, commits, folders, and the commands that train them.

    CELL is written as `head=seqattn heads=4`, with any keys, and may be several cells; or it is the beginning of a
    run's fingerprint, or of a cell's group.
    """
    from headsweep.analysis.explain import explain as text

    said, damages = text(cell, sweep, output)
    click.echo(lines(said))
    end_incomplete(damages)
