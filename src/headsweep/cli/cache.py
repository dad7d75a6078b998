"""`headsweep cache`: list and remove the stored tokens of frozen backbones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import FilePath, commands, output_option
from headsweep.errors import UserError
from headsweep.text import aligned, one_line, size_of
from headsweep.tracking.output_folder import OutputFolder

if TYPE_CHECKING:
    from headsweep.data.token_folder import TokenFolder

_cache = click.option("--cache", type=FilePath(file_okay=False), help="paths.cache, if it is not in the output folder.")


@commands.group()
def cache() -> None:
    """List or remove the stored tokens of frozen backbones."""


@cache.command(name="list")
@output_option
@_cache
def listing(output: Path, cache: Path | None) -> None:
    """Print name, bytes on disk and bytes when complete of each folder of tokens."""

    rows = [(it.path.name, size_of(it.on_disk()), _when_complete(it)) for it in _folders(output, cache)]
    if not rows:
        click.echo(one_line(f"no tokens in {cache or OutputFolder(output).cache}"))
    else:
        click.echo(aligned([("NAME", "ON DISK", "WHEN COMPLETE"), *rows]))


@cache.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove all of them.")
@output_option
@_cache
def remove(names: tuple[str, ...], everything: bool, output: Path, cache: Path | None) -> None:
    """Remove the folders NAMES; the next run that needs such tokens computes them again."""

    folders = {folder.path.name: folder for folder in _folders(output, cache)}
    if not names and not everything:
        raise UserError("expected names of folders, or --all, found none; `headsweep cache list` prints the names")
    if unknown := [name for name in names if name not in folders]:
        raise UserError(f"{unknown[0]}: no such folder in {cache or OutputFolder(output).cache}")
    for name in folders if everything else dict.fromkeys(names):
        size = folders[name].on_disk()
        folders[name].remove()
        click.echo(f"removed {name} ({size_of(size)})")


def _folders(output: Path, cache: Path | None) -> list[TokenFolder]:
    from headsweep.data.token_folder import all_folders_in

    return list(all_folders_in(cache or OutputFolder(output).cache))


def _when_complete(folder: TokenFolder) -> str:
    from headsweep.data.token_folder import RECORD
    from headsweep.tracking.typed_files import Damaged

    try:
        record = folder.record()
    except Damaged:
        return f"incomplete: {RECORD} is damaged"
    return size_of(record.bytes) if record else f"incomplete: {RECORD} is absent"
