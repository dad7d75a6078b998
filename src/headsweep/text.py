"""Text of others on a terminal: what a copied folder or a name says must not move the cursor or set colors."""

from __future__ import annotations

import re
import unicodedata

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colors, and how progress bars move the cursor
_BREAK = re.compile("\r\n|[\t-\r\x1c-\x1e\x85\u2028\u2029]")
_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of letters, ends of lines and paragraphs
_HIDDEN = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # turn the direction of what follows around


def escaped(text: str, keep: str = "") -> str:
    r"""Return the text with line ends and control characters but those in `keep` written out, e.g. \n and \x1b."""
    return "".join(character if character in keep else _visible(character) for character in text)


def one_line(text: str) -> str:
    """Return the text in one line: blanks for line ends, and control characters written out."""
    return escaped(_BREAK.sub(" ", text))


def lines(text: str) -> str:
    """Return the text with its line ends and tabs, without colors, and with other control characters written out."""
    return escaped(_ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n"), keep="\n\t")


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    is_unsafe = unicodedata.category(character) in _CATEGORIES or code in _HIDDEN
    return character.encode("unicode_escape").decode() if is_unsafe else character
