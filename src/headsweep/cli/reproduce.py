"""`headsweep reproduce`: train a run again and compare."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import FilePath, commands, output_option
from headsweep.text import one_line

if TYPE_CHECKING:
    from headsweep.analysis.compare_runs import Comparison


@commands.command()
@click.argument("run")
@output_option
@click.option(
    "--into",
    type=FilePath(file_okay=False),
    help="Output folder of the new run. Default: OUTPUT/reproductions/FINGERPRINT.",
)
@click.option(
    "--code",
    type=click.Choice(["recorded", "changed", "current"]),
    help="Code to use: the recorded commit, checked out in a temporary folder, as it is or with the changes that were "
    "not committed; or the current code. Required if they differ.",
)
@click.option(
    "--data",
    type=FilePath(file_okay=False, exists=True),
    help="Folder of the images (dataset.root), if it is not the recorded one.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Accepted difference, in points of top-1 and top-5.",
)
def reproduce(run: str, output: Path, into: Path | None, code: str | None, data: Path | None, tolerance: float) -> None:
    """Train RUN again and compare metrics, result and weights.

    The recorded configuration is used, and RUN is the fingerprint or name of a run, a prefix of one, or its folder. The
    exit code is 0 if the new run is equal bit for bit or its accuracies are within the tolerance, and 1 otherwise. The
    original run, its sweep and MLflow are not changed.
    """
    from headsweep.status.find import find_run

    original = find_run(run, output)
    from headsweep.analysis.reproduce import reproduce as train
    from headsweep.tracking.output_folder import OutputFolder

    record = original.record()
    comparison = train(original, into or OutputFolder(output).reproductions / record.fingerprint, code, data)
    click.echo(one_line(f"{record.name} ({record.fingerprint}), trained again"))
    _print(comparison)
    if record.code.get("dirty") and code != "changed":
        click.echo("code        the original had uncommitted changes, which were not applied")
    if later := record.code.get("continued"):
        click.echo(one_line(f"code        the original was continued by other code: {later}"))
    within = comparison.points <= tolerance
    if comparison.is_exact:
        click.echo("REPRODUCED bit for bit in all that was compared")
    else:
        verdict = "REPRODUCED within the tolerance" if within and tolerance else "NOT REPRODUCED"
        differ = f"accuracies differ by up to {comparison.points:.3g} points"
        found = differ if math.isfinite(comparison.points) else "not both runs have test accuracies"
        click.echo(f"{verdict}: {found}, tolerance {tolerance:g}")
    sys.exit(0 if comparison.is_exact or (within and tolerance) else 1)


def _print(comparison: Comparison) -> None:
    for part in comparison.parts:
        click.echo(f"{part.name:10}  {part.words}")
    click.echo(f"{'machine':10}  {'; '.join(comparison.environment) or 'same device, threads and versions'}")
