"""A sweep as a page to read and to hand on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import commands, output_option

if TYPE_CHECKING:
    from headsweep.report.table import Table
    from headsweep.tracking.sweep_folder import SweepFolder


@commands.command()
@click.argument("sweep", default="latest")
@output_option
@click.option("--baseline", multiple=True, help="What to compare with, e.g. head=seqpool or head=seqpool,heads=1.")
@click.option("--metric", default="top1", show_default=True, help="What is compared, e.g. top1_last3, val_top1.")
def report(sweep: str, output: Path, baseline: tuple[str, ...], metric: str) -> None:
    """Write SWEEP as one HTML page with its table and figures, and the figures as SVG and PDF.

    SWEEP is a sweep's name, the beginning of it, or "latest". The page loads nothing: it can be mailed. It goes to
    MLflow, too, where the sweep is tracked.
    """
    from headsweep.report.page import document
    from headsweep.report.page.origin import origin_of
    from headsweep.report.request import Place, Request
    from headsweep.sweep.watching import find_sweep
    from headsweep.tracking.mlflow_store import default_uri
    from headsweep.tracking.sweep_folder import SweepFolder

    folder = SweepFolder(find_sweep(sweep, output).resolve())
    request = Request(folder.name, baseline=baseline, metric=metric, mark=True)
    table = request.answer(Place(output, default_uri(output), ""))
    words = ["headsweep", "report", folder.name, *(word for part in baseline for word in ("--baseline", part))]
    made_by = shlex.join([*words, *(["--metric", metric] if metric != "top1" else [])])
    count = document.write(table, origin_of(folder), made_by, folder.report.parent)
    click.echo(f"report   {folder.report}")
    click.echo(f"figures  {folder.report.parent / document.FIGURES} ({count}, as SVG and PDF)")
    _track(folder, table)


def _track(folder: SweepFolder, table: Table) -> None:
    """Bring the page to the MLflow run of the sweep, if it has one; a store that is down does no harm."""
    from headsweep.tracking.mlflow_projection import Projector

    tracking = table.cells[0].record.config["tracking"]
    if tracking["name"] != "mlflow" or not folder.is_one():
        return
    with Projector(tracking["uri"], tracking["experiment"], folder.path.parents[1]) as told:
        told.notify(folder)
    click.echo(told.description())
