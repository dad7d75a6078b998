"""`headsweep sync`: send to MLflow what it lacks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import checked_uri, commands, output_option
from headsweep.text import one_line

if TYPE_CHECKING:
    from headsweep.tracking.run_folder import RunFolder
    from headsweep.tracking.tracker import ExportedModel


@commands.command()
@output_option
@click.option("--uri", callback=checked_uri, help="Address of the MLflow store; default: the planned one of each run.")
@click.option("--experiment", help="MLflow experiment; default: the planned one of each run.")
def sync(output: Path, uri: str | None, experiment: str | None) -> None:
    """Send to MLflow what it lacks of all runs and sweeps.

    Use it after a sweep without a server, or for runs that were deleted in MLflow. Running it twice changes nothing.
    """
    from headsweep.tracking.mlflow import sync

    export = _export if find_spec("torch") else None
    sync.sync(output, uri, experiment, lambda line: click.echo(one_line(line)), export)
    if not find_spec("torch"):
        click.echo("no models were sent: torch is not installed here; run the command where it is")


def _export(run: RunFolder) -> ExportedModel:
    """Export the model of a run; torch is imported when the first one is needed."""
    from headsweep.run.predictor import predictor

    return predictor(run)
