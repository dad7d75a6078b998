"""Is a committed table what the runs say? For the continuous integration of a paper."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from headsweep.errors import UserError
from headsweep.report.request import COMMAND, END, Place, Request, layout_of

MOST_SHOWN = 5  # lines of a table that differ


@dataclass(frozen=True)
class _Block:
    """A table as it stands in a file."""

    first: int  # number of its first line
    words: str | None  # the command that made it; None where the format does not say
    text: str


def differences(
    path: Path, place: Place, parse: Callable[[str], Request], request: Request | None
) -> tuple[int, list[str]]:
    """Make every table of a file anew from the runs and compare it, line by line.

    Args:
        path: a file that `headsweep table --write` made, or one with such tables in it.
        place: where the runs are.
        parse: makes a request of the words of a command.
        request: how a table was made that does not say it itself (CSV).

    Returns:
        How many tables there are, and a line for each difference.

    Raises:
        UserError: the file cannot be read or has no table, or one cannot be made from the runs.
    """
    layout = layout_of(path)
    blocks = list(_blocks(path, layout))
    if not blocks:
        raise UserError(f"{path} has no table of headsweep's; want one written by `{COMMAND}SWEEP --write {path}`")
    found: list[str] = []
    for block in blocks:
        asked = request if block.words is None else parse(block.words)
        if asked is None:
            raise UserError(f"{path} does not say how it was made; want the sweep and the options that made it, too")
        found += _compare(path, block, asked.text(asked.answer(place), layout))
    return len(blocks), found


def _blocks(path: Path, layout: str) -> Iterator[_Block]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if layout == "csv":
        yield _Block(1, None, text)
    elif layout == "json":
        yield _Block(1, _made_by(path, text), text)
    else:
        yield from _marked(path, text.splitlines(keepends=True))


def _made_by(path: Path, text: str) -> str:
    try:
        return str(json.loads(text)["made_by"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no table of headsweep's (no JSON object with made_by)") from error


def _marked(path: Path, lines: Sequence[str]) -> Iterator[_Block]:
    first = None
    for at, line in enumerate(lines):
        inner = line.strip().removeprefix("<!--").removeprefix("%").removesuffix("-->").strip()
        if inner.startswith(COMMAND):
            first, words = at, inner
        elif inner == END and first is not None:
            yield _Block(first + 1, words, "".join(lines[first : at + 1]))
            first = None
    if first is not None:
        raise UserError(f"{path}:{first + 1}: this table has no end; want a line with '{END}' below it")


def _compare(path: Path, block: _Block, wanted: str) -> Iterator[str]:
    # A table within a list or an environment is indented as a whole.
    pairs = zip_longest(textwrap.dedent(block.text).splitlines(), wanted.splitlines())
    unlike = [(at, ours, theirs) for at, (ours, theirs) in enumerate(pairs) if ours != theirs]
    for at, ours, theirs in unlike[:MOST_SHOWN]:
        yield f"{path}:{block.first + at}: {_quoted(ours)}, but the runs say {_quoted(theirs)}"
    if len(unlike) > MOST_SHOWN:
        yield f"{path}: and {len(unlike) - MOST_SHOWN} more lines"


def _quoted(line: str | None) -> str:
    return "nothing" if line is None else f"'{line}'"
