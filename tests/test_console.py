"""What is printed is a courtesy: a stream that does not take it neither stops a program nor gives a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import TINY, command
from headsweep.config import PROJECT_ROOT
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from programs import relay

PROGRAM = r"""
import os, sys
from headsweep import console
with console.tolerant():
    with open("opened", "w") as file:
        print("\u0394 \xb1 1.5 \u2014 Zo\xeb", os.fsdecode(b"\xff"), "\N{SNOWMAN}")
        print("said", file=sys.stderr)
        file.write("kept")
    print(console.is_broken(), file=sys.stderr)
    LAST
"""


def give(streams: str, folder: Path, last: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The program, with its streams redirected as a shell does it; `|` is a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    words = ["bash", "-c", f'exec "$0" -c "$1" {streams.replace("|", f">&{writer}")}', sys.executable]
    with os.fdopen(writer):
        return subprocess.run(
            [*words, PROGRAM.replace("LAST", last)],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=[writer],
            timeout=60,
        )


@pytest.mark.parametrize(
    ("streams", "code", "line"),
    [
        ("", 0, ""),
        ("|", 141, ""),
        (">&-", 2, "headsweep: standard output: it is closed; what was printed is incomplete\n"),
        ("> /dev/full", 2, "headsweep: standard output: No space left on device; what was printed is incomplete\n"),
        ("2>&-", 0, None),
        ("2> /dev/full", 0, None),
        (">&- 2>&-", 2, None),
        ("| 2>&1", 141, None),
    ],
)
def test_a_stream_that_takes_no_text_gives_an_exit_code_and_at_most_a_line(tmp_path, streams, code, line):
    answer = give(streams, tmp_path)
    assert answer.returncode == code
    assert (tmp_path / "opened").read_text() == "kept", "nothing else is written to a file that is opened"
    if line is not None:
        assert answer.stderr.decode() == f"said\n{code != 0}\n{line}"


def test_a_program_that_ends_with_a_code_of_its_own_keeps_it(tmp_path):
    assert give("> /dev/full", tmp_path, last="sys.exit(1)").returncode == 1
    assert give("> /dev/full", tmp_path, last="sys.exit(0)").returncode == 2
    assert give("> /dev/full", tmp_path, last="console.lost()").returncode == 0, "the loss was reported"


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"PYTHONIOENCODING": "utf-8"}, "Δ ± 1.5 — Zoë ? ☃"),
        ({"PYTHONIOENCODING": "latin-1"}, "d ± 1.5 - Zoë ? ?"),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "d +- 1.5 - Zoe ? ?"),
    ],
)
def test_characters_that_a_terminal_lacks_are_replaced(tmp_path, environment, text):
    answer = give("", tmp_path, **environment)
    assert (answer.returncode, answer.stderr) == (0, b"said\nFalse\n")
    assert answer.stdout.decode("latin-1" if "latin-1" in environment.values() else "utf-8") == text + "\n"


def test_a_terminal_of_no_columns_shows_tables(tmp_path):
    answer = give("", tmp_path, last="from rich.console import Console; Console().print('shown')", COLUMNS="0")
    assert answer.stdout.endswith(b"shown\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["-m", "headsweep.cli", "--help"], [str(PROJECT_ROOT / "src" / "train.py"), "--help"]]
)
def test_both_programs_print_so(words):
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run([sys.executable, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert answer.returncode == 2
    assert answer.stderr == ("headsweep: standard output: No space left on device; what was printed is incomplete\n")


@pytest.mark.slow
def test_a_grid_trains_to_its_end_though_its_reader_has_gone(tmp_path):
    """Piped into `head -1`, with a longer TMPDIR than a socket may have."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    job = ["-m", "seed=0,1", "duration='1 epochs'", "tracking=none", *TINY, f"paths.output={tmp_path}"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer):
        words, environment = [*relay(), *command(*job)[1:]], {**os.environ, "TMPDIR": str(long)}
        answer = subprocess.run(words, stdout=writer, stderr=writer, env=environment, timeout=300)
    assert answer.returncode == 0, "the runs have ended well"
    states = [RunFolder(path).state() for path in tmp_path.glob("runs/*")]
    assert states == [RunState.finished] * 2
