"""Giving the true command, as a user does."""

import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import programs
from headsweep import cli
from headsweep.config import PROJECT_ROOT
from programs import Program

Answer = CompletedProcess[str]
TRAIN = str(PROJECT_ROOT / "src" / "train.py")
TINY_RUN = [  # a true run on true images, as short as can be
    "model.width=32",
    "model.depth=1",
    "model.attention_heads=1",
    "debug.train_images=128",
    "debug.eval_images=128",
    "batch_size=32",
]
TINY_CELL = [*TINY_RUN, "debug.eval_images=32"]  # of a grid, of which no test looks into an evaluation
TINY = [*TINY_CELL, "hydra.launcher.slots=2", "hydra.launcher.threads=1"]


def give(*arguments: object) -> int:
    """Exit code of `headsweep ARGUMENTS`, in this process."""
    with patch.object(sys, "argv", ["headsweep", *map(str, arguments)]):
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def enter(*arguments: str) -> int:
    """Exit code of `python src/train.py ARGUMENTS`, in this process."""
    with patch.object(sys, "argv", [TRAIN, *arguments]):
        try:
            runpy.run_path(TRAIN, run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def train(*arguments: str, cwd: Path | None = None, **environment: str) -> Answer:
    """Run `python src/train.py ARGUMENTS` to its end, started warm."""
    return programs.run([TRAIN, *arguments], cwd=cwd, env={**os.environ, **environment})


def train_with_interpreter(python: str, *arguments: str, cwd: Path | None = None, **environment: str) -> Answer:
    """As `train`; what it starts with `sys.executable` is started with `python`: see `programs.write_interpreter`."""
    program = f"import runpy, sys; sys.executable, sys.argv[0] = {python!r}, {TRAIN!r}"
    words = ["-c", f"{program}; runpy.run_path({TRAIN!r}, run_name='__main__')", *arguments]
    return programs.run(words, cwd=cwd, env={**os.environ, **environment})


def start(*arguments: str) -> Program:
    """Start `python src/train.py ARGUMENTS`, warm, in a process group of its own."""
    return Program([TRAIN, *arguments], new_session=True)


def headsweep(*arguments: object, **environment: str) -> Answer:
    """Run `headsweep ARGUMENTS` to its end, started warm."""
    return programs.run(["-m", "headsweep.cli", *map(str, arguments)], env={**os.environ, **environment})


EACH = """
import json, os, runpy, sys, tempfile
import headsweep.cli, headsweep.entry
answers = []
for words, more in json.loads(sys.argv[1]):
    files = [tempfile.TemporaryFile("w+") for _ in range(2)]
    if (child := os.fork()) == 0:
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        os.environ.update(more)
        sys.argv[1:] = words
        runpy.run_module("headsweep", run_name="__main__", alter_sys=True)
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answers.append([words, code, *(os.pread(file.fileno(), 1 << 20, 0).decode() for file in files)])
print(json.dumps(answers))
"""


def headsweep_each(
    *given: tuple[Sequence[str], Mapping[str, str]], cwd: Path | None = None, **environment: str
) -> list[Answer]:
    """Run `headsweep WORDS` for words and additional variables: each in a fork of a program that has imported it."""
    done = programs.run(["-c", EACH, json.dumps(given)], cwd=cwd, env={**os.environ, **environment})
    assert done.returncode == 0, done
    return [CompletedProcess(*answer) for answer in json.loads(done.stdout.splitlines()[-1])]


def light(*words: str, **environment: str) -> Answer:
    """Run `python WORDS` to its end; neither torch nor MLflow nor headsweep is imported, as in a new interpreter."""
    return programs.run(words, env={**os.environ, **environment}, kind=".light")


def fresh(*words: str, **environment: str) -> Answer:
    """Run `python WORDS` to its end in a new interpreter: for what a program imports."""
    words = (sys.executable, *words)
    return subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)


def answers(port: int) -> bool:
    """Return whether a program listens on a port of this machine."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], object]) -> None:
    """Look until `condition` holds, for a minute of looks."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


def command(*arguments: str) -> list[str]:
    """The words of the command."""
    return [sys.executable, TRAIN, *arguments]
