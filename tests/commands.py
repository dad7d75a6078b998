"""Giving the true command, as a user does."""

import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from headsweep import cli
from headsweep.config import PROJECT_ROOT

TINY_RUN = [  # a true run on true images, as short as can be
    "model.width=32",
    "model.depth=1",
    "model.attention_heads=1",
    "debug.train_images=128",
    "debug.eval_images=128",
    "batch_size=32",
]
TINY = [*TINY_RUN, "hydra.launcher.slots=2"]  # a grid of such runs


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
    script = str(PROJECT_ROOT / "src" / "train.py")
    with patch.object(sys, "argv", [script, *arguments]):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def train(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python src/train.py ARGUMENTS` to its end."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start `python src/train.py ARGUMENTS` in a process group of its own."""
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(condition: Callable[[], object]) -> None:
    """Look until `condition` holds, for a minute of looks."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


def command(*arguments: str) -> list[str]:
    """The words of the command."""
    return [sys.executable, str(PROJECT_ROOT / "src" / "train.py"), *arguments]
