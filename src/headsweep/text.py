"""Text for a terminal: columns, and text from files that must not move the cursor or set colors."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import click
from rich.cells import cell_len

UNKNOWN = "?"  # in the place of a number that is not known
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colors, and how progress bars move the cursor
_BREAK = re.compile("\r\n|[\t-\r\x1c-\x1e\x85\u2028\u2029]")
_EASILY_QUOTED = re.compile(r"""[^"$`\\!]*'[^"$`\\!]*""")  # what is left out, a shell reads inside double quotes, too
_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, line and paragraph separators
_BIDIRECTIONAL = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # change the direction of the text that follows


def escaped(text: str, keep: str = "") -> str:
    r"""Return the text with line ends and control characters, except those in `keep`, escaped as \n and \x1b."""
    return "".join(character if character in keep else _visible(character) for character in text)


def one_line(text: str) -> str:
    """Return the text in one line: spaces for line ends, and other control characters escaped."""
    return escaped(_BREAK.sub(" ", text))


def first_line(text: object) -> str:
    """Return the first line of a text, e.g. of a library's error."""
    return str(text).strip().partition("\n")[0]


def last_line(text: object) -> str:
    """Return the last line of a text, which in a traceback is the error."""
    return str(text).strip().rpartition("\n")[2]


def message_of(error: BaseException) -> str:
    """Return the message of an error in one line; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def typed_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message, if it has one."""
    line = first_line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def lines(text: str) -> str:
    """Return the text with its line ends and tabs, without colors, and with other control characters escaped."""
    return escaped(_ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n"), keep="\n\t")


def shell_command(words: Iterable[str]) -> str:
    """Return the words as a shell reads them; those with single quotes in double ones, as people write them."""
    return " ".join(f'"{word}"' if _EASILY_QUOTED.fullmatch(word) else shlex.quote(word) for word in words)


def is_file_name(text: str) -> bool:
    """Return whether the text can name one file or folder beside others: visible, no dot first, no slashes."""
    return bool(text.strip()) and escaped(text) == text and text[0] != "." and not re.search(r"[/\\]", text)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, e.g. "1 run" or "3 runs"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def shortened(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first items and how many more there are, e.g. "a, b, and 3 more"."""
    rest = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *rest])


def aligned(rows: Sequence[Sequence[str]], colors: Mapping[int, Mapping[str, str]] | None = None) -> str:
    """Return rows as columns two spaces apart.

    Args:
        rows: the cells of each row, as many in each.
        colors: color of a cell by column and text; `click.echo` drops colors outside a terminal.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        colors = None

    def shown(column: int, cell: str, width: int) -> str:
        color = (colors or {}).get(column, {}).get(cell)
        padded = cell + " " * (width - cell_len(cell))
        return click.style(padded, fg=color) if color else padded

    return "\n".join(
        "  ".join([*(shown(at, row[at], width) for at, width in enumerate(widths[:-1])), row[-1]]) for row in rows
    )


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    is_unsafe = unicodedata.category(character) in _CATEGORIES or code in _BIDIRECTIONAL
    return character.encode("unicode_escape").decode() if is_unsafe else character


def capitalized(words: str) -> str:
    """Return the words with an upper-case first letter, the others unchanged."""
    return words[:1].upper() + words[1:]


def span(seconds: float | None) -> str:
    """Format a duration in the largest unit of which it has at least two."""
    if seconds is None:
        return UNKNOWN
    units = ((86400, "d"), (3600, "h"), (60, "min"))
    size, unit = next(((size, unit) for size, unit in units if seconds >= 2 * size), (1, "s"))
    return f"{seconds / size:.0f} {unit}"


def size_of(count: int) -> str:
    """Format bytes in the largest unit of which there is at least one."""
    units = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
    unit, name = next((it for it in units if count >= it[0]), (1, "bytes"))
    return f"{count / unit:.1f} {name}" if unit > 1 else f"{count} bytes"
