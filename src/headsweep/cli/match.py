"""`headsweep match`: settings of equal size, for a fair comparison."""

from __future__ import annotations

import re

import click

from headsweep.cli.group import commands
from headsweep.errors import UserError


@commands.command(context_settings={"ignore_unknown_options": True})
@click.argument("measure", type=click.Choice(["params", "flops"]))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--budget", help="Parameters or FLOPs of the whole model, e.g. 4.2M.")
@click.option(
    "--baseline", multiple=True, help="Cell whose size is the budget, e.g. head=seqattn or head=seqattn,heads=4."
)
@click.option("--vary", type=click.Choice(["width", "heads"]), default="width", show_default=True, help="What to vary.")
@click.option(
    "--share",
    type=click.FloatRange(0, 100),
    default=10.0,
    show_default=True,
    help="Tolerance, in percent of the budget.",
)
def match(
    measure: str, arguments: tuple[str, ...], budget: str | None, baseline: tuple[str, ...], vary: str, share: float
) -> None:
    """Choose head widths or numbers of heads that fit a budget.

    For each cell of `headsweep train -m ARGUMENTS`, the setting whose parameter count (params) or FLOPs of one
    image's forward pass (flops) is closest to the budget is printed, with the command that trains it. Nothing is
    started.
    """
    from headsweep.analysis.match import Target
    from headsweep.analysis.match import match as text
    from headsweep.config.command_line import unknown_option
    from headsweep.config.values import read_words

    if (budget is None) is not bool(baseline):
        raise UserError("expected either --budget, e.g. 4.2M, or --baseline, e.g. head=seqattn")
    unknown = [word for word in arguments if word.startswith("-") and word not in ("-m", "--multirun")]
    if unknown:
        raise unknown_option(unknown[0], "unknown option of match (headsweep match --help)")
    words = [word for word in arguments if not word.startswith("-")]
    target = Target(measure, _count(budget) if budget else None, read_words(baseline, "--baseline "), vary, share / 100)
    found, is_any_near = text(words, target)
    click.echo(found.rstrip())
    if not is_any_near:
        raise UserError("no setting is within the tolerance: give another --budget or --baseline, or a larger --share")


def _count(budget: str) -> int:
    """A number with a unit: 4.2M."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)", budget.replace(",", ""))
    count = round(float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[match[2]]) if match else 0
    if not count:
        raise UserError(f"--budget {budget}: expected a number > 0, e.g. 4.2M or 4200000")
    return count
