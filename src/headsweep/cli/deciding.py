"""What to train next: how many seeds, and which settings make a fair comparison."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import commands, output_option


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
    from headsweep.sweep.watching import find_sweep

    folder = find_sweep(sweep, output)
    from headsweep.report.reference import parse_baseline
    from headsweep.sweep.seeds import Aim, advise
    from headsweep.tracking.sweep_folder import SweepFolder

    click.echo(advise(SweepFolder(folder), parse_baseline(baseline), Aim(difference, power, alpha, slots)))
