"""Two members of a group work in one output folder, whatever their umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import TINY, give, train
from headsweep.tracking.sharing import let_group_write, share_with_group


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The usual one, which lets a group read only; commands in this process change it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def shared(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o2775)
    return path


def refusing(output: Path) -> list[str]:
    """What the group may not write."""
    return [str(path.relative_to(output)) for path in output.rglob("*") if not path.stat().st_mode & stat.S_IWGRP]


@pytest.mark.slow
def test_all_files_and_locks_in_a_shared_folder_can_be_written_by_the_group(tmp_path: Path):
    output = shared(tmp_path / "outputs")
    answer = train("-m", "head=gap", "duration='1 epochs'", *TINY, "tracking.models=false", f"paths.output={output}")
    assert answer.returncode == 0, answer.stderr
    assert len(list(output.glob("runs/*/log.txt"))) == 1 and (output / "mlflow.db").exists()
    assert refusing(output) == []


def test_commands_share_what_they_create(tmp_path: Path):
    output = shared(tmp_path / "outputs")
    assert give("status", "--output", output) == 0
    (output / "folder").mkdir()
    (output / "folder" / "file").touch()
    assert refusing(output) == []


@pytest.mark.parametrize("mode", [0o2755, 0o775, None])
def test_a_folder_of_a_single_user_is_left_alone(mode: int | None, tmp_path: Path):
    """A folder without the set-group-ID bit has files of its users' own groups."""
    output = tmp_path / "outputs"
    if mode is not None:
        output.mkdir()
        output.chmod(mode)
    share_with_group(output)
    output.mkdir(exist_ok=True)
    (output / "file").touch()
    let_group_write(output / "file")
    assert refusing(output) == ["file"]


def test_a_file_whose_program_chose_its_permissions(tmp_path: Path):
    output = shared(tmp_path / "outputs")
    (output / "file").touch(mode=0o600)
    let_group_write(output / "file")
    assert stat.S_IMODE((output / "file").stat().st_mode) == 0o620
