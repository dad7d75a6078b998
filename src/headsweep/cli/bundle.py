"""`headsweep bundle`: one archive of a sweep for a reader elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import FilePath, commands, output_option
from headsweep.errors import UserError
from headsweep.text import plural


@commands.command()
@click.argument("sweep", default="latest")
@output_option
@click.option(
    "--write",
    "path",
    type=FilePath(dir_okay=False),
    help="Archive to write. Default: SWEEP.tar.gz in the current folder.",
)
@click.option("--weights", is_flag=True, help="Include the checkpoints of the runs.")
@click.option("--partial", is_flag=True, help="Bundle a sweep with runs that have not finished.")
@click.option("--force", is_flag=True, help="Replace the archive if it exists.")
def bundle(sweep: str, output: Path, path: Path | None, weights: bool, partial: bool, force: bool) -> None:
    """Write SWEEP as one archive: table, report, and all that its numbers rest on.

    SWEEP is the name of a sweep, a prefix of it, or "latest". The archive has configurations, metrics of each epoch,
    predictions, environment, code version with uncommitted changes, commands, and answers to the reproducibility
    checklists of NeurIPS and ACL. Unpacked anywhere, it is an output folder for `headsweep table`, `report` and
    `reproduce`. Passwords, addresses of stores, folders and names of users are left out. The same runs make the same
    bytes.
    """
    from headsweep.status.find import find_sweep
    from headsweep.tracking.sweep_folder import SweepFolder

    folder = SweepFolder(find_sweep(sweep, output).resolve())
    path = path or Path(f"{folder.name}.tar.gz")
    if path.exists() and not force:
        raise UserError(f"{path} exists; give another --write, or --force to replace it")
    from headsweep.analysis.bundle.bundle import check_finished, prepared, write

    if not partial:
        check_finished(folder)
    try:
        with prepared(folder, weights) as contents:
            size = f"{plural(len(contents.records), 'file')}, {_size(contents.record_bytes)}"
            share = "included" if weights else "not included; --weights adds them"
            click.echo(f"{folder.name}: {size}; weights: {_size(contents.weight_bytes)}, {share}")
            write(contents, folder, path, weights)
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be written: {error.strerror or error}") from error
    click.echo(f"{path}: {_size(path.stat().st_size)}")


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"
