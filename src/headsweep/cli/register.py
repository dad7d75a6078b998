"""`headsweep register`: the model of a run in MLflow's model registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import checked_uri, commands, output_option
from headsweep.errors import UserError
from headsweep.text import lines

if TYPE_CHECKING:
    from headsweep.tracking.run_folder import RunFolder
    from headsweep.tracking.tracker import ExportedModel


@commands.command()
@click.argument("run")
@click.option("--name", required=True, help="Name of the registered model; another run becomes its next version.")
@output_option
@click.option("--uri", callback=checked_uri, help="Address of the MLflow store; default: the planned one of the run.")
def register(run: str, name: str, output: Path, uri: str | None) -> None:
    """Register the model of RUN in MLflow's model registry.

    RUN is the fingerprint or name of a finished run, a prefix of one, or its folder. Its best weights on validation
    images are used, or the last ones if no images are held out, with the signature and an example of the input. The
    command prints how to load and how to serve the model. The same command again finds the same version.
    """
    if not name.strip() or any(character in name for character in "/:'\"") or not name.isprintable():
        raise UserError(f"--name {name!r}: expected a name without slashes, colons and quotes, e.g. digits-head")
    from headsweep.status.find import find_run

    folder = find_run(run, output)
    from headsweep.tracking.trackers import TRACKERS, planned_tracker

    config, place = folder.record().config, folder.output.path
    tracker = (
        TRACKERS["mlflow"](uri, config["tracking"]["experiment"], place) if uri else planned_tracker(config, place)
    )
    click.echo(lines(tracker.register(folder, name, _export)))


def _export(run: RunFolder) -> ExportedModel:
    """Export the model of a run; torch is imported only if the store lacks it."""
    from headsweep.run.predictor import predictor

    return predictor(run)
