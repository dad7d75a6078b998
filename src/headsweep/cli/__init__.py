"""The `headsweep` command: train, watch, compare and export runs.

One module a command, named after it; what is heavy (torch, timm, Hydra) is imported when it is needed, so that
`--help` and `status` answer at once.
"""

from __future__ import annotations

import sys

import click

from headsweep import console
from headsweep.cli import (  # noqa: F401 - each module adds its command
    bundle,
    cache,
    cancel,
    check_head,
    explain,
    export,
    inspect,
    logs,
    match,
    plan,
    power,
    register,
    report,
    reproduce,
    retry,
    status,
    sync,
    table,
    train,
    watch,
)
from headsweep.cli.group import commands
from headsweep.credentials import store_passwords
from headsweep.errors import UserError


def main() -> None:
    """Run the command line; an error is one line and exit code 2, an output stream without a reader exit code 141."""
    with console.tolerant():
        _run()


def _run() -> None:
    try:
        sys.argv[1:] = store_passwords(sys.argv[1:])  # before anything records the command
        commands(standalone_mode=False, prog_name="headsweep")
    except (Exception, KeyboardInterrupt) as error:
        from headsweep.exit_codes import one_line_errors  # imports Hydra, to know its errors

        with one_line_errors():
            if isinstance(error, click.ClickException):
                context = getattr(error, "ctx", None)  # of the command that was mistyped, as far as it is known
                command = context.command_path if context else "headsweep"
                raise UserError(f"{' '.join(error.format_message().split())} ({command} --help)") from error
            if isinstance(error, click.Abort) and error.__cause__:  # how click hands on an interrupt
                raise error.__cause__ from None
            raise
