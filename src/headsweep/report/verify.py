"""Is a committed table what the runs say? For the continuous integration of a paper."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from headsweep.errors import UserError
from headsweep.report.formats import html, latex
from headsweep.report.request import COMMAND, END, Place, Request, layout_of

MOST_SHOWN = 5  # lines of a table that differ
_WORDS = rf"({COMMAND.strip()}\b.*?|{END}.*?)"
_COMMENT = re.compile(rf"<!--\s*{_WORDS}\s*-->", re.DOTALL)
_MARKS = {
    "markdown": _COMMENT,
    "html": _COMMENT,
    "latex": re.compile(rf"(?<!\\)%+[ \t]*{_WORDS}[ \t]*$", re.MULTILINE),
}
_LOOKS = {  # a line that the format writes in every table
    "markdown": re.compile(r"\|\s*head\s*\|"),
    "html": re.compile(re.escape(html.OPENING)),
    "latex": re.compile(re.escape(latex.SETUP)),
}


@dataclass(frozen=True)
class _Block:
    """A table as it stands in a file."""

    first: int  # number of its first line
    words: str | None  # the command that made it; None where the format does not say
    text: str


def differences(
    path: Path, place: Place, parse: Callable[[str], Request], request: Request | None
) -> tuple[int, list[str]]:
    """Make every table of a file anew from the runs and compare it, line by line; blanks and empty lines do not count.

    Args:
        path: a file that `headsweep table --write` made, or one with such tables in it.
        place: where the runs are.
        parse: makes a request of the words of a command.
        request: how a table was made that does not say it itself (CSV).

    Returns:
        How many tables there are, and a line for each difference.

    Raises:
        UserError: the file cannot be read or has no table, one of its tables is not between two comments, or cannot be
            made from the runs.
    """
    layout = layout_of(path)
    found: list[str] = []
    blocks = _blocks(path, layout)
    for block in blocks:
        asked = request if block.words is None else parse(block.words)
        if asked is None:
            raise UserError(f"{path} does not say how it was made; want the sweep and the options that made it, too")
        found += _compare(path, block, asked.text(asked.answer(place), layout))
    return len(blocks), found


def _blocks(path: Path, layout: str) -> list[_Block]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before the text
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if layout == "csv":
        return [_Block(1, None, text)]
    if layout == "json":
        return [_Block(1, _made_by(path, text), text)]
    return _between_marks(path, text, layout)


def _made_by(path: Path, text: str) -> str:
    try:
        return str(json.loads(text)["made_by"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no table of headsweep's (no JSON object with made_by)") from error


def _between_marks(path: Path, text: str, layout: str) -> list[_Block]:
    """The tables of a file, each between the comment that says how it was made and the one that ends it."""
    lines = text.split("\n")
    blocks, faults = _pairs(lines, dict(_marks(text, layout)))
    if not faults:
        faults = list(_unmarked(lines, blocks, layout))
    if faults:
        count = len(blocks) + len(faults)
        raise UserError(f"{path}: expected {count} table{'s' * (count > 1)}, found {len(blocks)}: {'; '.join(faults)}")
    if not blocks:
        raise UserError(f"{path} has no table of headsweep's; want one written by `{COMMAND}SWEEP --write {path}`")
    return blocks


def _pairs(lines: Sequence[str], marks: Mapping[int, str | None]) -> tuple[list[_Block], list[str]]:
    """The tables between two comments, and what is wrong with the other comments."""
    blocks: list[_Block] = []
    faults: list[str] = []
    first: int | None = None
    for at, mark in [*marks.items(), (len(lines), COMMAND)]:
        if mark is None:
            faults.append(f"line {at + 1} has a comment of headsweep's and something else")
        elif mark == END and first is not None:
            blocks.append(_Block(first + 1, marks[first], "\n".join(lines[first : at + 1])))
            first = None
        elif mark == END:
            faults.append(f"the table that ends in line {at + 1} has no comment '{COMMAND}...' above it")
        else:
            if first is not None:
                faults.append(f"the table that begins in line {first + 1} has no comment '{END}' below it")
            first = at
    return blocks, faults


def _marks(text: str, layout: str) -> Iterator[tuple[int, str | None]]:
    """Number of a line from 0, and the comment of headsweep's that it is; None where it is not that alone."""
    for found in _MARKS[layout].finditer(text):
        at = text.count("\n", 0, found.start())
        line = text.split("\n")[at]
        yield at, found[1] if line.strip() == found[0].strip() else None


def _unmarked(lines: Sequence[str], blocks: Sequence[_Block], layout: str) -> Iterator[str]:
    """The tables that look as those of headsweep do, but stand between no comments."""
    inside = {at for block in blocks for at in range(block.first - 1, block.first + block.text.count("\n"))}
    for at, line in enumerate(lines):
        if at not in inside and _LOOKS[layout].match(line.strip()):
            yield f"the table in line {at + 1} has no comment '{COMMAND}...' above it and no '{END}' below"


def _compare(path: Path, block: _Block, wanted: str) -> Iterator[str]:
    pairs = zip_longest(_lines(block.text), _lines(wanted), fillvalue=(None, None))
    unlike = [(at, ours, theirs) for (at, ours), (_, theirs) in pairs if ours != theirs]
    for at, ours, theirs in unlike[:MOST_SHOWN]:
        place = path if at is None else f"{path}:{block.first + at}"
        yield f"{place}: {_quoted(ours)}, but the runs say {_quoted(theirs)}"
    if len(unlike) > MOST_SHOWN:
        yield f"{path}: and {len(unlike) - MOST_SHOWN} more lines"


def _lines(text: str) -> list[tuple[int | None, str | None]]:
    """Lines that are not empty, by number from 0, with one blank for several: editors indent, align and strip them."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return [(at, line) for at, line in enumerate(lines) if line]


def _quoted(line: str | None) -> str:
    return "nothing" if line is None else f"'{line}'"
