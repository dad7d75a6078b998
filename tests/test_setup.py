"""`make setup`: too little space is reported before a download, and constraints leave each Python a version."""

import shutil
import subprocess
import sys
from importlib.metadata import distributions
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

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


def test_constraints_are_for_those_pythons_that_their_versions_are_for():
    """Debian 12 has Python 3.11.2; a version for 3.11.5 and later leaves pip without any there.

    3.14.1 is left out: torchvision excludes it, so that nothing here runs with it.
    """
    pythons = [f"3.{minor}.{patch}" for minor, patch in product(range(10, 15), range(20))]
    pythons.remove("3.14.1")
    checked = 0
    for constraint in map(Requirement, (PROJECT_ROOT / "constraints.txt").read_text().splitlines()[1:]):
        for package in distributions(name=constraint.name):
            if constraint.specifier.contains(package.version):
                allowed, checked = SpecifierSet(package.metadata.get("Requires-Python", "")), checked + 1
                wrong = [python for python in pythons if is_for(constraint, python) and python not in allowed]
                assert not wrong, f"{constraint}: is for Python {allowed}"
    assert checked > 0 or sys.version_info < (3, 11)


def is_for(constraint: Requirement, python: str) -> bool:
    minor = python.rpartition(".")[0]
    return not constraint.marker or constraint.marker.evaluate({"python_version": minor, "python_full_version": python})
