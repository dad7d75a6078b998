"""The comparison table, and whether a committed one is true."""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headsweep.cli.group import checked_uri, commands, end_incomplete, output_option
from headsweep.errors import UserError
from headsweep.text import one_line

if TYPE_CHECKING:
    from headsweep.report.request import Place, Request
    from headsweep.report.table.build import Table

LAYOUTS = ("terminal", "markdown", "csv", "latex", "html", "json")


@commands.command()
@click.argument("source", default="latest")
@output_option
@click.option("--columns", help="Names of columns, e.g. parameters,top1,difference,p; a wrong one lists all.")
@click.option("--rows", help="Axes that run down a pivot, e.g. head.")
@click.option("--cols", help="Axes that run across a pivot, e.g. heads.")
@click.option("--baseline", multiple=True, help="What to compare with, e.g. head=seqpool or head=seqpool,heads=1.")
@click.option("--metric", default="top1", show_default=True, help="What is compared, e.g. top1_last3, val_top1.")
@click.option("--mark", is_flag=True, help="Show runs of mixed code, epochs, data or seeds, and say so.")
@click.option("--format", "layout", type=click.Choice(LAYOUTS), help="Default: terminal, or as the --write file ends.")
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), help="File to write, e.g. table.tex.")
@click.option(
    "--verify", type=click.Path(path_type=Path, dir_okay=False), help="Compare a file's tables with the runs."
)
@click.option("--uri", callback=checked_uri, help="MLflow's store; default: sqlite in the output folder.")
@click.option("--experiment", default="headsweep", show_default=True, help="MLflow's experiment.")
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
    """Compare the runs of SOURCE: intervals over seeds, paired differences, costs.

    SOURCE is a sweep's name, the beginning of it, "latest", or a filter of MLflow's: "params.`head.name` = 'ga'". The
    files that --write makes say how they were made; --verify makes their tables anew and exits with 1 if one differs.
    """
    from headsweep.report.request import Place, layout_of
    from headsweep.tracking.trackers import TRACKERS

    place = Place(output, TRACKERS["mlflow"](uri, experiment, output))
    if verify:
        given = click.get_current_context().get_parameter_source("source") is not click.core.ParameterSource.DEFAULT
        _verify(verify, place, _request({"source": source, **options}, output) if given else None)
        return
    if write and layout and layout != layout_of(write):
        raise UserError(f"--format {layout} --write {write}: the name says {layout_of(write)}; want one of the two")
    request = _request({"source": source, **options}, output)
    answer = request.answer(place)
    if write:
        from headsweep.tracking import atomic_files

        atomic_files.write_text(write, request.text(answer, layout_of(write)))
        click.echo(f"{write}: {len(answer.rows)} rows; made by {request.words()}")
    elif layout in (None, "terminal"):
        _print(request, answer)
    else:
        click.echo(request.text(answer, layout), nl=False)
    end_incomplete(answer.damages)


def _request(options: dict[str, Any], output: Path) -> Request:
    from headsweep.report.request import Request
    from headsweep.status.find import find_sweep

    request = Request(**options)
    if request.is_filter:
        return request
    return Request(**{**options, "source": find_sweep(request.source, output).name})


def _print(request: Request, answer: Table) -> None:
    from headsweep.report.formats import terminal

    if request.columns or request.rows or request.cols:
        terminal.show_sheet(request.sheet(answer), terminal.screen())
    else:
        terminal.show(answer, terminal.screen())


def _verify(path: Path, place: Place, request: Request | None) -> None:
    from headsweep.report.request import Request
    from headsweep.report.verify import differences

    def parse(words: str) -> Request:
        try:
            # Without --help, which would print and exit as if the table agreed.
            context = table.make_context("table", shlex.split(words)[2:], help_option_names=[])
        except (click.ClickException, ValueError) as error:
            reason = error.format_message() if isinstance(error, click.ClickException) else error
            raise UserError(f"{path}: {words!r} is no command of this version ({reason})") from error
        return _request({field.name: context.params[field.name] for field in fields(Request)}, place.output)

    count, found = differences(path, place, parse, request)
    for line in found:
        click.echo(one_line(f"headsweep: {line}"), err=True)
    if found:
        sys.exit(1)
    click.echo(f"{path}: {count} table{'s agree' if count > 1 else ' agrees'} with the runs")
