"""The group of all commands, and the options that several of them share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from headsweep.text import lines

OUTPUT = Path(__file__).resolve().parents[3] / "outputs"  # what paths.output is, unless it is set


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Which classification head, and how many of them? What can be done with trained runs."""


output_option = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=OUTPUT,
    show_default=True,
    help="Folder of the sweeps and runs (paths.output).",
)


def checked_uri(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an address that cannot be read, before anything heavy is imported for it."""
    if value is not None:
        from headsweep.config.checks import address

        address("--uri", value)
    return value


def end_incomplete(damages: Sequence[Exception]) -> None:
    """Exit with 1 if an answer leaves out what cannot be read, and say what, as every command over many runs does."""
    for damage in damages:
        click.echo(f"headsweep: {lines(str(damage))}", err=True)
    if damages:
        sys.exit(1)
