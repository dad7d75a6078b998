"""The group of all commands, and options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from headsweep.errors import UserError
from headsweep.folders import default_output
from headsweep.text import lines

OUTPUT = default_output()
_KEY = "paths.output="


class FilePath(click.Path):
    """A path that is not empty: a variable that is not set in a script does not stand for the working directory."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("expected a path, found nothing", param, ctx)
        return super().convert(value, param, ctx)


class OutputOption(click.Option):
    """The folder of the runs, which sweeps are given as `paths.output`."""


class Command(click.Command):
    """A command that accepts `paths.output=FOLDER` for `--output FOLDER`, as in the command of a sweep."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(isinstance(it, OutputOption) for it in self.params):
            end = args.index("--") if "--" in args else len(args)
            _check(args[:end])
            args = [*map(_as_option, args[:end]), *args[end:]]
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type  # groups in it are of the same class


def _check(words: Sequence[str]) -> None:
    """Raise UserError unless `paths.output`, if it is given, is a folder, and the only one."""
    given = [word for word in words if word.startswith(_KEY)]
    if _KEY in given:
        raise UserError(f"{_KEY}: expected a folder, found nothing")
    if len({word.removeprefix(_KEY) for word in given}) + any(word.split("=")[0] == "--output" for word in words) > 1:
        raise UserError(f"{given[0]}: expected one folder of runs, found several; give it once")


def _as_option(word: str) -> str:
    return f"--output={word.removeprefix(_KEY)}" if word.startswith(_KEY) else word


@click.group(cls=Group, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Plan, train, watch, compare and export runs."""


def _shared(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Let the group write what the command creates, if it shares the output folder.

    Raises:
        UserError: a folder that was given does not exist.
    """
    is_given = context.get_parameter_source(str(parameter.name)) is not click.core.ParameterSource.DEFAULT
    if is_given and not value.exists():
        raise UserError(f"--output {value}: expected the output folder of runs (paths.output), found no such folder")
    from headsweep.tracking.sharing import share_with_group

    share_with_group(value)
    return value


output_option = click.option(
    "--output",
    cls=OutputOption,
    callback=_shared,
    type=FilePath(file_okay=False),
    default=OUTPUT,
    show_default=True,
    help="Output folder of the runs (paths.output).",
)


def checked_uri(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Reject an address that is no URI before anything heavy is imported."""
    if value is not None:
        from headsweep.config.checks import address

        address("--uri", value)
    return value


def end_incomplete(damages: Sequence[Exception]) -> None:
    """If a result leaves out runs that cannot be read, print why and exit with code 1."""
    for damage in damages:
        click.echo(f"headsweep: {lines(str(damage))}", err=True)
    if damages:
        sys.exit(1)
