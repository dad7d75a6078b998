"""`headsweep table`: print, write or verify the comparison table."""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headsweep.cli.group import FilePath, checked_uri, commands, end_incomplete, output_option
from headsweep.errors import UserError
from headsweep.text import one_line, plural

if TYPE_CHECKING:
    from headsweep.report.request import Location, Request
    from headsweep.report.table.model import Table

BASELINE_HELP = (
    "Cell to compare with, e.g. head=seqpool or head=seqpool,heads=1. Default: the baseline variant of the study, or "
    "without variants the head of the first row."
)
TUNE_HELP = "Key whose value is chosen for each row on validation images, e.g. optimizer.lr; may be repeated."
METRIC_HELP = "Metric to compare, e.g. top1_last3, val_top1, auroc or log_loss; an unknown name prints all."
MARGIN_HELP = (
    "Smallest difference that matters, in percentage points (log loss: nats): adds a verdict to each row. Default: "
    "that of the study, for a metric in percentage points."
)
LAYOUTS = ("terminal", "markdown", "csv", "latex", "html", "json")


@commands.command()
@click.argument("source", default="latest")
@output_option
@click.option("--columns", help="Columns to show, e.g. parameters,top1,difference,p; an unknown name prints all.")
@click.option("--rows", help="Axes down the side of a pivot table, e.g. head.")
@click.option("--cols", help="Axes across the top of a pivot table, e.g. heads.")
@click.option("--over", type=click.Choice(["heads", "dataset"]), help="Show the effect of K, or ranks over data sets.")
@click.option("--baseline", multiple=True, help=BASELINE_HELP)
@click.option("--metric", default="top1", show_default=True, help=METRIC_HELP)
@click.option("--tune", multiple=True, help=TUNE_HELP)
@click.option("--margin", type=float, help=MARGIN_HELP)
@click.option(
    "--mark",
    is_flag=True,
    help="Compare runs with inconsistent code, precisions, durations, data, seeds or tuning, with a warning.",
)
@click.option(
    "--format", "layout", type=click.Choice(LAYOUTS), help="Default: terminal, or by the suffix of the --write file."
)
@click.option("--write", type=FilePath(dir_okay=False), help="Write the table to this file, e.g. table.tex.")
@click.option("--verify", type=FilePath(dir_okay=False), help="Compare the tables in this file with the runs.")
@click.option(
    "--uri", callback=checked_uri, help="MLflow tracking URI. Default: the SQLite store in the output folder."
)
@click.option("--experiment", default="headsweep", show_default=True, help="MLflow experiment.")
def table(
    source: str,
    output: Path,
    layout: str | None,
    write: Path | None,
    verify: Path | None,
    uri: str | None,
    experiment: str,
    **options: Any,
) -> None:
    """Compare the runs of SOURCE: accuracies with confidence intervals over seeds, paired differences and costs.

    SOURCE is the name of a sweep or its beginning, "latest", or an MLflow filter: "params.`head.name` = 'ga'".
    A file written with --write records its command; --verify makes its tables again and exits with 1 if one differs.
    """
    from headsweep.report.request import Location, layout_of
    from headsweep.tracking.trackers import TRACKERS

    location = Location(output, TRACKERS["mlflow"](uri, experiment, output))
    if verify:
        given = click.get_current_context().get_parameter_source("source") is not click.core.ParameterSource.DEFAULT
        _verify(verify, location, _request({"source": source, **options}, output) if given else None)
        return
    if write and layout and layout != layout_of(write):
        raise UserError(f"--format {layout} --write {write}: expected a file name for {layout}; drop one of the two")
    request = _request({"source": source, **options}, output)
    comparison = request.table(location)
    if write:
        from headsweep.tracking import atomic_files

        rows = comparison.rows if layout_of(write) in ("csv", "json") else comparison.by_cell
        atomic_files.write_text(write, request.text(comparison, layout_of(write)))
        click.echo(f"{write}: {plural(len(rows), 'row')}, made by {request.command()}")
    elif layout in (None, "terminal"):
        _print(request, comparison)
    else:
        click.echo(request.text(comparison, layout), nl=False)
    end_incomplete(comparison.damages)


def _request(options: dict[str, Any], output: Path) -> Request:
    from headsweep.report.request import Request
    from headsweep.status.find import find_sweep

    request = Request(**options)
    if request.is_filter:
        return request
    return Request(**{**options, "source": find_sweep(request.source, output).name})


def _print(request: Request, comparison: Table) -> None:
    from headsweep.report.formats import terminal

    if request.columns or request.rows or request.cols or request.over:
        terminal.show_sheet(request.sheet(comparison))
    else:
        terminal.show(comparison)


def _verify(path: Path, location: Location, request: Request | None) -> None:
    from headsweep.report.request import Request
    from headsweep.report.verify import verify

    def parse(command: str) -> Request:
        try:
            # Without --help, which would exit with code 0.
            context = table.make_context("table", shlex.split(command)[2:], help_option_names=[])
        except (click.ClickException, ValueError) as error:
            reason = error.format_message() if isinstance(error, click.ClickException) else error
            raise UserError(f"{path}: {command!r} is not a command of this version ({reason})") from error
        return _request({field.name: context.params[field.name] for field in fields(Request)}, location.output)

    found = verify(path, location, parse, request)
    for line in found.differences:
        click.echo(one_line(f"headsweep: {line}"), err=True)
    for name in found.absent:
        click.echo(one_line(f"{path}: the input {name} is no file in {path.parent} and was not read"), err=True)
    if found.differences:
        sys.exit(1)
    count = plural(found.tables, "table") + f" in {found.files} files" * (found.files > 1)
    click.echo(f"{path}: {count} {'agrees' if found.tables == 1 else 'agree'} with the runs")
