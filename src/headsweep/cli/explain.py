"""`headsweep explain`: where a number comes from."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import commands, end_incomplete, output_option
from headsweep.text import lines


@commands.command()
@click.argument("cell", nargs=-1, required=True)
@click.option(
    "--sweep", help='Sweep to search: name, prefix or "latest". Default: latest, or all runs if CELL is a run.'
)
@output_option
def explain(cell: tuple[str, ...], sweep: str | None, output: Path) -> None:
    """Show where the numbers of CELL come from.

    Its runs, their seeds, commits and folders, and the commands that train them, are printed. CELL is written as
    `head=seqattn heads=4`, with any keys, and may match several cells; or it is one of its runs (fingerprint, name, a
    prefix of one, or folder), or a prefix of its group.
    """
    from headsweep.analysis.explain import explain as text

    report, damages = text(cell, sweep, output)
    click.echo(lines(report))
    end_incomplete(damages)
