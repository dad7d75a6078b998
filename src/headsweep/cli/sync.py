"""What MLflow lacks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import checked_uri, commands, output_option
from headsweep.text import one_line

if TYPE_CHECKING:
    from headsweep.tracking.mlflow.model import Built
    from headsweep.tracking.run_folder import RunFolder


@commands.command()
@output_option
@click.option(
    "--uri", callback=checked_uri, help="Address of MLflow's store; default: the one that each run was planned with."
)
@click.option("--experiment", help="Its experiment; default: the one that each run was planned with.")
def sync(output: Path, uri: str | None, experiment: str | None) -> None:
    """Send to MLflow what it lacks of all runs and sweeps.

    After a sweep without a server, or for runs that were deleted in MLflow; given again, it changes nothing.
    """
    from headsweep.tracking.mlflow import sync

    build = _build if find_spec("torch") else None
    sync.sync(output, uri, experiment, lambda line: click.echo(one_line(line)), build)
    if not find_spec("torch"):
        click.echo("no models were sent: there is no torch here; give the command where it is")


def _build(run: RunFolder) -> Built:
    """Import torch once a model is lacking."""
    from headsweep.run.predictor import predictor

    return predictor(run)
