"""What to train next: how many seeds, and which settings make a fair comparison."""

from __future__ import annotations

import math
import re
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


@commands.command(context_settings={"ignore_unknown_options": True})
@click.argument("measure", type=click.Choice(["params", "flops"]))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--budget", help="Of the whole model, e.g. 4.2M.")
@click.option("--baseline", multiple=True, help="Whose size is the budget, e.g. head=seqattn or head=seqattn,heads=4.")
@click.option(
    "--vary", type=click.Choice(["width", "heads"]), default="width", show_default=True, help="What may change."
)
@click.option(
    "--share", type=click.FloatRange(0, 100), default=10.0, show_default=True, help="Percent that may be missed."
)
def match(
    measure: str, arguments: tuple[str, ...], budget: str | None, baseline: tuple[str, ...], vary: str, share: float
) -> None:
    """Pick head widths, or numbers of heads, to a budget, for the cells of `python src/train.py -m ARGUMENTS`.

    The settings whose parameters (params) or FLOPs of one image's forward pass (flops) are nearest to the budget are
    printed, with the commands that train them. Nothing is started.
    """
    from headsweep.analysis.match import Target
    from headsweep.analysis.match import match as text
    from headsweep.config.values import read_words

    if (budget is None) is not bool(baseline):
        raise UserError("want one of --budget, e.g. 4.2M, and --baseline, e.g. head=seqattn")
    unknown = [word for word in arguments if word.startswith("-") and word not in ("-m", "--multirun")]
    if unknown:
        raise UserError(f"{unknown[0]}: no option of match (headsweep match --help)")
    words = [word for word in arguments if not word.startswith("-")]
    target = Target(measure, _count(budget) if budget else None, read_words(baseline, "--baseline "), vary, share / 100)
    found, is_any_near = text(words, target)
    click.echo(found.rstrip())
    if not is_any_near:
        raise UserError("no setting is near the budget: want another --budget or --baseline, or a larger --share")


def _count(budget: str) -> int:
    """A number with a unit: 4.2M."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)", budget.replace(",", ""))
    count = round(float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[match[2]]) if match else 0
    if not count:
        raise UserError(f"--budget {budget}: want a number above 0, e.g. 4.2M or 4200000")
    return count
