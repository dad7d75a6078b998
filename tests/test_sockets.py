"""Sockets of a process and its children: wherever TMPDIR is, and nothing is left of them, however the process ends."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from commands import wait_for
from headsweep import sockets
from headsweep.errors import UserError

PROGRAM = """
import multiprocessing, sys, time
from multiprocessing import forkserver
from headsweep import sockets
multiprocessing.set_forkserver_preload(sys.argv[1:])
with sockets.exported():
    forkserver.ensure_running()
print(sockets.folder(), flush=True)
multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(0,)).start()
sys.stdin.read()
"""
FORKSERVER = "from headsweep import sockets\nsockets.remove_at_exit()\n"


@pytest.fixture
def temp():
    """A folder with a short path, which pytest's are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


def start(temp: Path, *preload: str) -> tuple[subprocess.Popen[str], Path]:
    """The program, with that TMPDIR, and its folder. It ends when its standard input is closed."""
    (temp / "warm.py").write_text(FORKSERVER)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *preload],
        env={**os.environ, "TMPDIR": str(temp), "PYTHONPATH": str(temp)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_long_tmpdir_is_no_place_for_sockets(temp):
    long = temp / ("x" * 100)
    long.mkdir()
    process, folder = start(long)
    assert folder.parent != long and folder.is_dir()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not folder.exists()


def test_killed_its_folder_goes_with_its_forkserver(temp):
    process, folder = start(temp, "warm")
    assert folder.parent == temp and list(folder.glob("pymp-*/listener-*"))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not folder.exists())


def test_a_forkserver_that_ends_first_leaves_the_folder(tmp_path):
    """It is in use as long as the launcher holds its lock."""
    used = tmp_path / "used"
    used.mkdir()
    handle = os.open(used, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    forkserver = [sys.executable, "-c", FORKSERVER]
    subprocess.run(forkserver, env={**os.environ, "HEADSWEEP_SOCKETS": str(used)}, check=True, timeout=60)
    assert used.is_dir()
    os.close(handle)
    subprocess.run(forkserver, env={**os.environ, "HEADSWEEP_SOCKETS": str(used)}, check=True, timeout=60)
    assert not used.exists()


@pytest.mark.slow
def test_killed_with_its_forkserver_its_folder_goes_with_the_next_process(temp):
    first, left = start(temp)
    second, kept = start(temp)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert left.is_dir()
    third, _ = start(temp)
    assert not left.exists()
    assert kept.is_dir(), "it is in use"
    for process in (second, third):
        process.communicate(timeout=60)
    assert [path.name for path in temp.iterdir()] == ["warm.py"]


@pytest.mark.parametrize("name", ["headsweep-clone", "headsweep-sockets-notes"])
def test_other_folders_are_never_removed(name, tmp_path):
    (tmp_path / name / "pymp-1").mkdir(parents=True)
    (tmp_path / name / "results.csv").write_text("precious")
    sockets._remove_left_over(tmp_path)
    assert (tmp_path / name / "results.csv").read_text() == "precious"


def test_without_any_folder_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sockets, "_OTHERS", ("/none",))
    monkeypatch.setattr(sockets.tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    monkeypatch.setenv("TMPDIR", "/scratch")
    expected = "TMPDIR=/scratch: expected a writable folder whose path has at most 48 bytes, found none"
    with pytest.raises(
        UserError, match=rf"^{expected} \(.* is too long; /none: No such file or directory\); make one$"
    ):
        sockets.folder.__wrapped__()


def test_a_child_has_its_parents_folder(monkeypatch):
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert sockets.folder.__wrapped__() is None
