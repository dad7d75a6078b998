"""A sweep as a page to read and to hand on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import checked_uri, commands, end_incomplete, output_option

if TYPE_CHECKING:
    from headsweep.report.table.build import Table
    from headsweep.tracking.sweep_folder import SweepFolder


@commands.command()
@click.argument("source", default="latest")
@output_option
@click.option("--baseline", multiple=True, help="What to compare with, e.g. head=seqpool or head=seqpool,heads=1.")
@click.option("--metric", default="top1", show_default=True, help="What is compared, e.g. top1_last3, val_top1.")
@click.option("--uri", callback=checked_uri, help="MLflow's store, for a filter; default: sqlite in the output folder.")
@click.option("--experiment", default="headsweep", show_default=True, help="MLflow's experiment, for a filter.")
def report(source: str, output: Path, baseline: tuple[str, ...], metric: str, uri: str | None, experiment: str) -> None:
    """Write SOURCE as one HTML page with its table and figures, and the figures as SVG and PDF.

    SOURCE is a sweep or a filter of MLflow's, as for `table`. The page loads nothing: it can be mailed. That of a sweep
    goes to MLflow, too, where the sweep is tracked.
    """
    from headsweep.report.html import document
    from headsweep.report.html.origin import Origin, origin_of
    from headsweep.report.request import Place, Request
    from headsweep.status.find import find_sweep
    from headsweep.tracking.output_folder import OutputFolder
    from headsweep.tracking.sweep_folder import SweepFolder
    from headsweep.tracking.trackers import TRACKERS

    request = Request(source, baseline=baseline, metric=metric, mark=True)
    sweep = None if request.is_filter else SweepFolder(find_sweep(source, output).resolve())
    if sweep:
        request, origin, folder = replace(request, source=sweep.name), origin_of(sweep), sweep.report.parent
    else:
        origin = Origin(source)
        folder = OutputFolder(output.resolve()).reports / re.sub(r"[^\w.-]+", "-", source).strip("-")
    table = request.answer(Place(output, TRACKERS["mlflow"](uri, experiment, output)))
    made_by = request.words().replace("headsweep table", "headsweep report").removesuffix(" --mark")
    count = document.write(table, origin, made_by, folder)
    click.echo(f"report   {folder / document.PAGE}")
    click.echo(f"figures  {folder / document.FIGURES} ({count}, as SVG and PDF)")
    if sweep:
        _track(sweep, table)
    end_incomplete(table.damages)


def _track(folder: SweepFolder, table: Table) -> None:
    """Mirror the page to the tracker of the sweep; a store that is down costs a line."""
    from headsweep.tracking.trackers import planned_tracker

    if not folder.has_several_runs():
        return
    with planned_tracker(table.cells[0].record.config, folder.output.path) as tracker:
        tracker.notify(folder)
    if place := tracker.description():
        click.echo(place)
