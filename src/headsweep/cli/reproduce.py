"""`headsweep reproduce`: train a run again and compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import commands, output_option
from headsweep.text import one_line

if TYPE_CHECKING:
    from headsweep.analysis.compare_runs import Comparison


@commands.command()
@click.argument("run")
@output_option
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), help="default: OUTPUT/reproductions/FINGERPRINT"
)
@click.option(
    "--code",
    type=click.Choice(["recorded", "current"]),
    help="The recorded commit, checked out in a temporary folder, or what is here; needed where the two differ.",
)
@click.option(
    "--tolerance", type=click.FloatRange(0), default=0.0, show_default=True, help="In points of top-1 and top-5."
)
def reproduce(run: str, output: Path, into: Path | None, code: str | None, tolerance: float) -> None:
    """Train RUN again from its recorded configuration and commit, and compare: history, result and weights.

    RUN is a fingerprint or name, or the beginning of one. The exit code is 0 if all is equal bit for bit, or the
    accuracies are within the tolerance, and 1 if not. Neither the run, nor its sweep, nor MLflow is touched.
    """
    from headsweep.status.views import find_run

    original = find_run(run, output)
    from headsweep.analysis.reproduce import reproduce as train

    record = original.record()
    comparison = train(original, into or output / "reproductions" / record.fingerprint, code)
    click.echo(one_line(f"{record.name} ({record.fingerprint}), trained again"))
    _print(comparison)
    if record.code.get("dirty"):
        click.echo("code        the original had uncommitted changes, which are lost")
    within = comparison.points <= tolerance
    if comparison.is_exact:
        click.echo("REPRODUCED, bit for bit in all that was compared")
    else:
        verdict = "WITHIN THE TOLERANCE" if within and tolerance else "DIFFERS"
        click.echo(f"{verdict}: accuracies by up to {comparison.points:.3g} points, tolerance {tolerance:g}")
    sys.exit(0 if comparison.is_exact or (within and tolerance) else 1)


def _print(comparison: Comparison) -> None:
    for part in comparison.parts:
        click.echo(f"{part.name:10}  {part.words}")
    click.echo(f"{'machine':10}  {'; '.join(comparison.environment) or 'the same device, threads and versions'}")
