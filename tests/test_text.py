"""Text from files cannot act on a terminal, nor leave its folder as a name."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from headsweep import text

EVIL = "\x1b[31mred\x1b]0;title\x07\rover\u009b2J\x7f\u202egnp.exe"


def test_one_line_is_one_line_without_anything_that_a_terminal_obeys():
    assert text.one_line(EVIL) == r"\x1b[31mred\x1b]0;title\x07 over\x9b2J\x7f\u202egnp.exe"
    assert text.one_line("a\r\nb\tc\u2028d\x85e\x0bf") == "a b c d e f"


@pytest.mark.parametrize(
    "word",
    ["heads=1,2", "duration='2 epochs'", "a'b\"c", "it's $HOME", "a'`b`", "a'\\", "a'!b", "", "a b", "'", "a'\nb"],
)
def test_a_shell_reads_the_words_of_a_command_as_they_are(word: str):
    command = text.shell_command(["printf", "%s", word])
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    assert found == word == shlex.split(command)[2]


@pytest.mark.parametrize("plain", ["größer-Überkopf-頭部", "a  b 'c' \\x1b", "ÆØÅ 🙂", "+0.5 ± 0.1"])
def test_other_text_stays_as_it_is(plain):
    assert text.one_line(plain) == text.lines(plain) == plain


def test_a_long_list_says_how_many_items_it_leaves_out():
    assert [text.shortened("abc"[:count], 2) for count in range(4)] == ["", "a", "a, b", "a, b, and 1 more"]
    assert text.shortened(["a", "b", "c"], 1, "; ") == "a; and 2 more"


def test_lines_keep_their_ends_and_lose_their_colors():
    assert text.lines("\x1b[1;31mred\x1b[0m\r\nnext\tone\r10 %\r20 %\n") == "red\nnext\tone\n10 %\n20 %\n"
    assert text.lines("\x1b]0;title\x07") == r"\x1b]0;title\x07"


@pytest.mark.parametrize("name", ["a", "cct_7-3x1.32", "größer 頭部", "x" * 300, "a\u00a0b"])
def test_a_name_of_a_file_is_any_visible_text(name):
    assert text.is_file_name(name)


@pytest.mark.parametrize("name", ["", " ", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "a\x00", "\ud800", "\u202ea"])
def test_what_leads_elsewhere_or_is_invisible_is_no_name_of_a_file(name):
    assert not text.is_file_name(name)
