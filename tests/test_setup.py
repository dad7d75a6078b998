"""`make setup`: where there is too little space, it says so before anything is downloaded."""

import shutil
import subprocess
from pathlib import Path

import pytest

from headsweep.config import PROJECT_ROOT
from scripts import Scripts


@pytest.fixture
def clone(tmp_path: Path, scripts: Scripts) -> Path:
    """A clone in which a script stands for Python: its environment's pip records its arguments."""
    place = tmp_path / "a clone"
    place.mkdir()
    shutil.copy(PROJECT_ROOT / "Makefile", place)
    for name in ("pyproject.toml", "constraints.txt"):
        (place / name).touch()
    pip = f'#!/bin/sh\\n[ -d "$TMPDIR" ] && shift 3 && echo "$*" >> {scripts.place}/asked\\n'
    scripts.write("python", '[ "$2" = venv ] || exit 0', "mkdir -p .venv/bin", f"printf '{pip}' > .venv/bin/python",
                  "chmod +x .venv/bin/python")  # fmt: skip
    return place


def setup(clone: Path, scripts: Scripts, free: float) -> subprocess.CompletedProcess[str]:
    """Set up, with some GB free."""
    scripts.write("df", "echo header", f"echo /dev/disk 999999999 1 {int(free * 1024**2)} 99% /")
    command = ["make", "setup", f"PYTHON={scripts.place / 'python'}"]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=60)


def asked(scripts: Scripts) -> list[str]:
    return (scripts.place / "asked").read_text().splitlines()


@pytest.mark.parametrize(("free", "found"), [(8, "8.0"), (8.99, "8.9"), (0.45, "0.4")])
def test_too_little_space_is_one_line_before_anything_is_written(free, found, clone: Path, scripts: Scripts):
    answer = setup(clone, scripts, free)
    assert answer.returncode == 2
    line, _ = answer.stderr.splitlines()  # the second one is make's
    assert line == (
        f"headsweep: expected 9 GB free in {clone} to set up .venv, found {found}; "
        "free some, or use a clone on another disk"
    )
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(("free", "cache"), [(9, " --no-cache-dir"), (50, "")])
def test_torch_comes_first_and_pip_s_cache_only_where_it_fits(free, cache, clone: Path, scripts: Scripts):
    answer = setup(clone, scripts, free)
    assert answer.returncode == 0, answer.stderr
    words = f"-qq --disable-pip-version-check --constraint constraints.txt{cache}"
    assert asked(scripts) == [f"{words} torch torchvision", f"{words} --editable .[dev]"]
    assert not (clone / ".venv" / "tmp").exists()


def test_an_environment_that_exists_is_brought_up_to_date_wherever_there_is_some_space(clone: Path, scripts: Scripts):
    assert setup(clone, scripts, free=50).returncode == 0
    (clone / ".venv" / ".ready").unlink()
    assert setup(clone, scripts, free=1).returncode == 0
    assert len(asked(scripts)) == 4
