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
    "--difference", type=click.FloatRange(0, min_open=True), required=True, help="To be found, in points of top-1."
)
@click.option("--baseline", multiple=True, help="What each cell is compared with, as in `table`.")
@click.option(
    "--power", type=click.FloatRange(0, 1, True, True), default=0.8, show_default=True, help="Chance to find it."
)
@click.option(
    "--alpha", type=click.FloatRange(0, 1, True, True), default=0.05, show_default=True, help="Of all tests together."
)
@click.option("--slots", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time, for the cost.")
def power(
    sweep: str, output: Path, difference: float, baseline: tuple[str, ...], power: float, alpha: float, slots: int
) -> None:
    """Say how many seeds SWEEP needs to find a difference, from the variance seen so far, and what they cost.

    SWEEP is a sweep's name, the beginning of it, or "latest". The command that adds the seeds is printed.
    """
    from headsweep.status.views import find_sweep

    folder = find_sweep(sweep, output)
    from headsweep.analysis.power import Aim, advise
    from headsweep.config.values import read_words
    from headsweep.tracking.sweep_folder import SweepFolder

    if not math.isfinite(difference) or difference > 100:
        raise UserError(f"--difference {difference:g}: want points of top-1, more than 0 and at most 100, e.g. 0.5")
    aim = Aim(difference, power, alpha, slots)
    said, damages = advise(SweepFolder(folder), read_words(baseline, "--baseline "), aim)
    click.echo(lines(said))
    end_incomplete(damages)
