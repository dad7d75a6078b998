"""`headsweep inspect`: how the heads of a trained run differ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import commands, output_option

if TYPE_CHECKING:
    from headsweep.tracking.inspection import Inspection

COLUMNS = {"disagreement": ("differs %", "{:.2f}"), "kl": ("KL, nats", "{:.3g}"), "cka": ("CKA", "{:.4f}")}


@commands.command()
@click.argument("run")
@output_option
@click.option(
    "--split", type=click.Choice(["test", "val"]), default="test", show_default=True, help="Images to evaluate."
)
@click.option("--images", type=click.IntRange(min=1), help="Number of images, from the first; default: all.")
@click.option(
    "--samples", type=click.IntRange(1, 64), default=8, show_default=True, help="Number of images in attention.png."
)
@click.option("--device", help="Device, e.g. cpu; default: that of the run.")
@click.option("--again", is_flag=True, help="Recompute even if these weights were inspected before.")
def inspect(
    run: str, output: Path, split: str, images: int | None, samples: int, device: str | None, again: bool
) -> None:
    """Measure the accuracy, diversity and attention of RUN's heads.

    Numbers and pictures are written to the folder `inspection` of the run, and sent to MLflow as artifacts and as
    metrics inspect/... RUN is the fingerprint or name of a run, a prefix of one, or its folder.
    """
    from headsweep.status.find import find_run
    from headsweep.tracking.inspection import Question, read_inspection

    folder = find_run(run, output.resolve())
    question = Question(split, images, samples)
    found = None if again else read_inspection(folder.path)
    if found is None or found.question != question:
        from headsweep.analysis import inspect

        found = inspect.inspect(folder, question, device)
    else:
        click.echo("these weights were inspected before; --again recomputes")
    _show(found, folder.record().name)


def _show(found: Inspection, name: str) -> None:
    """Print a line a head, with the mean of its distances to the other heads."""
    from rich.table import Table

    from headsweep.report.formats.terminal import escape, screen

    table = Table("head", "top-1 %", *(title for title, _ in COLUMNS.values()), title=escape(name))
    for column in table.columns[1:]:
        column.justify = "right"
    for head, top1 in enumerate(found.heads):
        others = (
            _mean_of_others(found.matrices[key][head], head) if key in found.matrices else None for key in COLUMNS
        )
        table.add_row(str(head + 1), f"{100 * top1:.2f}", *map(_formatted, COLUMNS, others))
    means = (found.metrics.get(key) for key in COLUMNS)
    table.add_row("ensemble", f"{100 * found.metrics['top1']:.2f}", *map(_formatted, COLUMNS, means))
    screen().print(table)
    click.echo(_summary(found))
    if found.attention is None:
        click.echo("no attention.png: the head reads no patch tokens")
    for path in found.files:
        click.echo(path)


def _mean_of_others(row: list[float | None], head: int) -> float | None:
    values = [value for other, value in enumerate(row) if other != head and value is not None]
    return sum(values) / len(values) if values else None


def _formatted(key: str, value: float | None) -> str:
    return "-" if value is None else COLUMNS[key][1].format(100 * value if "%" in COLUMNS[key][0] else value)


def _summary(found: Inspection) -> str:
    images = f"{found.images} {found.question.split} images"
    if len(found.heads) == 1:
        return f"{images}; one head: nothing to compare"
    points = {key: 100 * found.metrics.get(key, math.nan) for key in ("ensemble_gain", "gain_over_best", "any_top1")}
    return (
        f"{images}; ensemble {points['ensemble_gain']:+.2f} points over the mean head, {points['gain_over_best']:+.2f} "
        f"over the best; at least one head is right on {points['any_top1']:.2f} %"
    )
