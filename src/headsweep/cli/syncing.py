"""What MLflow lacks."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import commands, output_option


@commands.command()
@output_option
@click.option("--uri", help="Address of MLflow's store; default: the one that each run was planned with.")
@click.option("--experiment", help="Its experiment; default: the one that each run was planned with.")
def sync(output: Path, uri: str | None, experiment: str | None) -> None:
    """Send to MLflow what it lacks of all runs and sweeps.

    After a sweep without a server, or for runs that were deleted in MLflow; given again, it changes nothing.
    """
    from headsweep.tracking import mlflow_sync

    mlflow_sync.sync(output, uri, experiment, click.echo)
