"""What a killed process left half-written is removed by the next command, and what may still be written is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder

KILLED = """
import os, signal, sys
from pathlib import Path
from headsweep.tracking import atomic_files
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
if sys.argv[2] == "file":
    atomic_files.write_with(folder / "mlflow.json", die)
if sys.argv[2] == "folder":
    atomic_files.replace_folder(folder / "inspection", die)
Path.rename = lambda self, target, rename=Path.rename: (rename(self, target), die())
atomic_files.replace_folder(folder / "inspection", lambda aside: (aside / "new").touch())
"""


@pytest.mark.parametrize("when", ["file", "folder", "between two renames"])
def test_what_a_killed_process_left_is_removed(tmp_path, when):
    (tmp_path / "inspection").mkdir()
    (tmp_path / "inspection" / "old").touch()
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), when], check=False)
    assert list(tmp_path.glob("*.part"))
    RunFolder(tmp_path).claim()
    assert not list(tmp_path.glob("*.part"))
    assert (tmp_path / "inspection" / "old").exists()


def test_what_may_still_be_written_stays(tmp_path):
    here, elsewhere = f"a.{os.uname().nodename}-{os.getppid()}.part", "a.elsewhere-12.part"
    old, older = "b.elsewhere-12.part", "checkpoint.pt.12.part"
    for name in (here, elsewhere, old, older):
        (tmp_path / name).touch()
    for name in (old, older):
        os.utime(tmp_path / name, (time.time() - 2 * atomic_files.ABANDONED_SECONDS,) * 2)
    atomic_files.remove_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {here, elsewhere}
