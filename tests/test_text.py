"""What others have written cannot act on a terminal."""

from __future__ import annotations

import pytest

from headsweep import text

EVIL = "\x1b[31mred\x1b]0;title\x07\rover\u009b2J\x7f\u202egnp.exe"


def test_one_line_is_one_line_without_anything_that_a_terminal_obeys():
    assert text.one_line(EVIL) == r"\x1b[31mred\x1b]0;title\x07 over\x9b2J\x7f\u202egnp.exe"
    assert text.one_line("a\r\nb\tc\u2028d\x85e\x0bf") == "a b c d e f"


@pytest.mark.parametrize("text", ["größer-Überkopf-頭部", "a  b 'c' \\x1b", "ÆØÅ 🙂", "+0.5 ± 0.1"])
def test_other_text_stays_as_it_is(text):
    assert text.one_line(text) == text.lines(text) == text


def test_lines_keep_their_ends_and_lose_their_colors():
    assert text.lines("\x1b[1;31mred\x1b[0m\r\nnext\tone\r10 %\r20 %\n") == "red\nnext\tone\n10 %\n20 %\n"
    assert text.lines("\x1b]0;title\x07") == r"\x1b]0;title\x07"
