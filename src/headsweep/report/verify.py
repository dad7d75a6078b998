"""Verify committed tables against the runs, e.g. in the continuous integration of a paper."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from headsweep.errors import UserError
from headsweep.report.formats import html, latex
from headsweep.report.request import COMMAND, END, Location, Request, layout_of
from headsweep.report.tex_inputs import files_of
from headsweep.text import plural

MOST_SHOWN = 5  # differing lines of a table
_MARK = rf"({COMMAND.strip()}\b.*?|{END}.*?)"
_COMMENT = re.compile(rf"<!--\s*{_MARK}\s*-->", re.DOTALL)
_MARKS = {
    "markdown": _COMMENT,
    "html": _COMMENT,
    "latex": re.compile(rf"(?<!\\)%+[ \t]*{_MARK}[ \t]*$", re.MULTILINE),
}
_TABLE_LINES = {  # a line that every table of the format has
    "markdown": re.compile(r"\|\s*head\s*\|"),
    "html": re.compile(re.escape(html.OPENING)),
    "latex": re.compile(re.escape(latex.SETUP)),
}


@dataclass(frozen=True)
class Verified:
    """What was compared, and what differs."""

    tables: int
    files: int
    absent: list[str]  # inputs of LaTeX that are no files beside the document
    differences: list[str]  # a line each


@dataclass(frozen=True)
class _Block:
    """A table in a file."""

    path: Path
    first: int  # number of its first line
    command: str | None  # that made it; None where the format cannot record it
    text: str


def verify(path: Path, location: Location, parse: Callable[[str], Request], request: Request | None) -> Verified:
    """Make every table of a file from the runs and compare the lines; white space and empty lines are ignored.

    Args:
        path: a file written by `headsweep table --write`, or one that contains such tables; for LaTeX, also one that
            includes them.
        location: where the runs are.
        parse: makes a request from a command.
        request: of a table whose format does not record its command (CSV).

    Raises:
        UserError: the file cannot be read or has no table, or one of its tables is not between its two comments or
            cannot be made from the runs.
    """
    layout = layout_of(path)
    found: list[str] = []
    files, absent = files_of(path, _read) if layout == "latex" else ([path], [])
    blocks = [block for file in files for block in _blocks(file, layout)]
    if not blocks:
        raise UserError(f"{path}: no table found; write one with `{COMMAND}SWEEP --write {path}`")
    for block in blocks:
        request_of_block = request if block.command is None else parse(block.command)
        if request_of_block is None:
            raise UserError(f"{path}: the format does not record its command; add the sweep and options that made it")
        found += _compare(block, request_of_block.text(request_of_block.table(location), layout))
    return Verified(len(blocks), len(files), absent, found)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _blocks(path: Path, layout: str) -> list[_Block]:
    text = _read(path)
    if layout == "csv":
        return [_Block(path, 1, None, text)]
    if layout == "json":
        return [_Block(path, 1, _made_by(path, text), text)]
    return _between_marks(path, text, layout)


def _made_by(path: Path, text: str) -> str:
    try:
        return str(json.loads(text)["made_by"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected a table written by headsweep (a JSON object with made_by)") from error


def _between_marks(path: Path, text: str, layout: str) -> list[_Block]:
    """Return the tables of a file, each between the comment with its command and the one that ends it."""
    lines = text.split("\n")
    blocks, faults = _pairs(path, lines, dict(_marks(text, layout)))
    if not faults:
        faults = list(_unmarked(lines, blocks, layout))
    if faults:
        expected = plural(len(blocks) + len(faults), "table")
        raise UserError(f"{path}: expected {expected}, found {len(blocks)}: {'; '.join(faults)}")
    return blocks


def _pairs(path: Path, lines: Sequence[str], marks: Mapping[int, str | None]) -> tuple[list[_Block], list[str]]:
    """Return the tables between two comments, and what is wrong with the other comments."""
    blocks: list[_Block] = []
    faults: list[str] = []
    first: int | None = None
    for at, mark in [*marks.items(), (len(lines), COMMAND)]:
        if mark is None:
            faults.append(f"line {at + 1} has other text beside its comment of headsweep")
        elif mark == END and first is not None:
            blocks.append(_Block(path, first + 1, marks[first], "\n".join(lines[first : at + 1])))
            first = None
        elif mark == END:
            faults.append(f"the table that ends at line {at + 1} has no comment '{COMMAND}...' above it")
        else:
            if first is not None:
                faults.append(f"the table that begins at line {first + 1} has no comment '{END}' below it")
            first = at
    return blocks, faults


def _marks(text: str, layout: str) -> Iterator[tuple[int, str | None]]:
    """Yield the lines (from 0) with a comment of headsweep, and that comment; None where the line has other text."""
    for found in _MARKS[layout].finditer(text):
        at = text.count("\n", 0, found.start())
        line = text.split("\n")[at]
        yield at, found[1] if line.strip() == found[0].strip() else None


def _unmarked(lines: Sequence[str], blocks: Sequence[_Block], layout: str) -> Iterator[str]:
    """Yield the tables that look like those of headsweep but are not between comments."""
    inside = {at for block in blocks for at in range(block.first - 1, block.first + block.text.count("\n"))}
    for at, line in enumerate(lines):
        if at not in inside and _TABLE_LINES[layout].match(line.strip()):
            yield f"the table at line {at + 1} has no comment '{COMMAND}...' above it and no '{END}' below"


def _compare(block: _Block, expected: str) -> Iterator[str]:
    pairs = zip_longest(_lines(block.text), _lines(expected), fillvalue=(None, None))
    differing = [(at, found, from_runs) for (at, found), (_, from_runs) in pairs if found != from_runs]
    for at, found, from_runs in differing[:MOST_SHOWN]:
        line = block.path if at is None else f"{block.path}:{block.first + at}"
        yield f"{line}: expected {_quoted(from_runs)} from the runs, found {_quoted(found)}"
    if len(differing) > MOST_SHOWN:
        yield f"{block.path}: and {len(differing) - MOST_SHOWN} more lines"


def _lines(text: str) -> list[tuple[int | None, str | None]]:
    """Return the non-empty lines by number from 0, with white space normalized: editors indent, align and strip it."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return [(at, line) for at, line in enumerate(lines) if line]


def _quoted(line: str | None) -> str:
    return "nothing" if line is None else f"'{line}'"
