"""`headsweep train`: one run, or with -m a grid of runs."""

from __future__ import annotations

import sys

import click

from headsweep.cli.completion import complete
from headsweep.cli.group import commands
from headsweep.errors import UserError


@commands.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=complete)
def train(arguments: tuple[str, ...]) -> None:
    """Train one run, or with -m the runs of a grid that are missing; --help describes the ARGUMENTS."""
    from headsweep.entry import train

    if shell := next((word for word in arguments if word.startswith(("install=", "uninstall="))), None):
        name = shell.partition("=")[2]
        script = f'eval "$(_HEADSWEEP_COMPLETE={name}_source headsweep)"'
        raise UserError(f"{shell}: expected the completion of the command headsweep, which this turns on: {script}")
    sys.argv[1:] = arguments
    train(arguments)
