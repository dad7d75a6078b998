"""`headsweep power`: how many seeds a sweep needs."""

from __future__ import annotations

import math
from pathlib import Path

import click

from headsweep.cli.group import commands, end_incomplete, output_option
from headsweep.errors import UserError
from headsweep.text import lines


@commands.command()
@click.argument("sweep", default="latest")
@output_option
@click.option(
    "--difference",
    type=click.FloatRange(0, min_open=True),
    help="Difference to detect, in points of top-1.",
)
@click.option(
    "--margin",
    type=float,
    help="Instead: margin within which heads count as equivalent, in points of top-1. Default: that of the study.",
)
@click.option("--baseline", multiple=True, help="Cell to compare the others with, as in `table`.")
@click.option(
    "--power", type=click.FloatRange(0, 1, True, True), default=0.8, show_default=True, help="Probability to detect it."
)
@click.option(
    "--alpha", type=click.FloatRange(0, 1, True, True), default=0.05, show_default=True, help="Family-wise error rate."
)
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of parallel runs, for the estimated time.",
)
def power(
    sweep: str,
    output: Path,
    difference: float | None,
    margin: float | None,
    baseline: tuple[str, ...],
    power: float,
    alpha: float,
    slots: int,
) -> None:
    """Compute how many seeds SWEEP needs to detect a difference, or to show that heads are equivalent.

    The variance is estimated from the finished runs. The training time of the missing runs, and the command that trains
    them, are printed. SWEEP is the name of a sweep, a prefix of it, or "latest", the default.
    """
    from headsweep.status.find import find_sweep

    folder = find_sweep(sweep, output)
    from headsweep.analysis.power import Aim, advise
    from headsweep.config.values import read_words
    from headsweep.report.request import check_margin
    from headsweep.tracking.sweep_folder import SweepFolder

    if difference is not None and margin is not None:
        raise UserError(f"--difference {difference:g} --margin {margin:g}: expected one of the two")
    declared = SweepFolder(folder).design().margin
    if difference is not None:
        if not math.isfinite(difference) or difference > 100:
            raise UserError(f"--difference {difference:g}: expected points of top-1 in (0, 100], e.g. 0.5")
        aim = Aim(difference, power, alpha, slots)
    elif margin is not None or declared is not None:
        points = margin if margin is not None else declared.points if declared else 0.0
        check_margin(points)
        aim = Aim(points, power, alpha, slots, is_margin=True)
    else:
        raise UserError("expected --difference POINTS or --margin POINTS, e.g. --difference 0.5")
    advice, damages = advise(SweepFolder(folder), read_words(baseline, "--baseline "), aim)
    click.echo(lines(advice))
    end_incomplete(damages)
