"""Text of others on a terminal: what a copied folder or a name says must not move the cursor or set colors."""

from __future__ import annotations

import re
import unicodedata

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colors, and how progress bars move the cursor
_BREAK = re.compile("\r\n|[\t-\r\x1c-\x1e\x85\u2028\u2029]")
_HIDDEN = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # turn the direction of what follows around


def one_line(text: str) -> str:
    """The text in one line, with control characters written out, e.g. \\x1b."""
    return "".join(map(_visible, _BREAK.sub(" ", text)))


def lines(text: str) -> str:
    """The text with its line ends and tabs, without colors, and with other control characters written out."""
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(character if character in "\n\t" else _visible(character) for character in text)


def _visible(character: str) -> str:
    is_control = unicodedata.category(character) == "Cc" or ord(character) in _HIDDEN
    return character.encode("unicode_escape").decode() if is_control else character
