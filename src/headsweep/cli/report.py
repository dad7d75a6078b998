"""`headsweep report`: write a sweep as one HTML page with figures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import checked_uri, commands, end_incomplete, output_option
from headsweep.cli.table import BASELINE_HELP, MARGIN_HELP, METRIC_HELP, TUNE_HELP

if TYPE_CHECKING:
    from headsweep.report.table.model import Table
    from headsweep.tracking.sweep_folder import SweepFolder


@commands.command()
@click.argument("source", default="latest")
@output_option
@click.option("--baseline", multiple=True, help=BASELINE_HELP)
@click.option("--metric", default="top1", show_default=True, help=METRIC_HELP)
@click.option("--tune", multiple=True, help=TUNE_HELP)
@click.option("--margin", type=float, help=MARGIN_HELP)
@click.option(
    "--uri", callback=checked_uri, help="MLflow tracking URI. Default: the SQLite store in the output folder."
)
@click.option("--experiment", default="headsweep", show_default=True, help="MLflow experiment.")
def report(
    source: str,
    output: Path,
    baseline: tuple[str, ...],
    metric: str,
    tune: tuple[str, ...],
    margin: float | None,
    uri: str | None,
    experiment: str,
) -> None:
    """Write SOURCE as one HTML page with its table and figures, and the figures as SVG and PDF.

    SOURCE is a sweep or an MLflow filter, as for `headsweep table`. The page is one self-contained file. If the sweep
    is tracked, the page is also logged to MLflow.
    """
    from headsweep.report.html import document
    from headsweep.report.html.origin import Origin, origin_of
    from headsweep.report.request import Location, Request
    from headsweep.status.find import find_sweep
    from headsweep.tracking.output_folder import OutputFolder
    from headsweep.tracking.sweep_folder import SweepFolder
    from headsweep.tracking.trackers import TRACKERS

    request = Request(source, baseline=baseline, metric=metric, tune=tune, margin=margin, mark=True)
    sweep = None if request.is_filter else SweepFolder(find_sweep(source, output).resolve())
    if sweep:
        request, origin, folder = replace(request, source=sweep.name), origin_of(sweep), sweep.report.parent
    else:
        origin = Origin(source)
        folder = OutputFolder(output.resolve()).reports / re.sub(r"[^\w.-]+", "-", source).strip("-")
    table = request.table(Location(output, TRACKERS["mlflow"](uri, experiment, output)), over_images=True)
    made_by = request.command().replace("headsweep table", "headsweep report").removesuffix(" --mark")
    count = document.write(table, origin, made_by, folder)
    click.echo(f"report   {folder / document.PAGE}")
    click.echo(f"figures  {folder / document.FIGURES} ({count}, as SVG and PDF)")
    if sweep:
        _track(sweep, table)
    end_incomplete(table.damages)


def _track(folder: SweepFolder, table: Table) -> None:
    """Log the page to the tracker of the sweep; an unavailable store is no error."""
    from headsweep.tracking.trackers import planned_tracker

    if not folder.has_several_runs():
        return
    with planned_tracker(table.cells[0].record.config, folder.output.path) as tracker:
        tracker.notify(folder)
    if place := tracker.description():
        click.echo(place)
