"""Who trains a sweep is known to every process while it lives, and can be asked to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from headsweep.errors import Interrupted
from headsweep.launch.signals import StopRequest
from headsweep.tracking import active_launchers

HOLD = """
import sys, time
from pathlib import Path
from headsweep.tracking.active_launchers import launching
with launching(Path(sys.argv[1])):
    print("known", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def launcher(tmp_path):
    """Another process that is known to train the sweep in `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "known\n"
    yield process
    process.kill()
    process.communicate()


def test_a_launcher_is_known_while_it_lives_and_leaves_no_trace(launcher, tmp_path):
    (found,) = active_launchers.find(tmp_path)
    assert found.pid == launcher.pid and found.is_here and found.command.startswith(sys.executable)
    launcher.kill()
    launcher.wait()
    assert len(list((tmp_path / "launchers").iterdir())) == 1
    assert active_launchers.find(tmp_path) == []
    assert list((tmp_path / "launchers").iterdir()) == []
    with active_launchers.launching(tmp_path):
        assert [one.pid for one in active_launchers.find(tmp_path)] == [os.getpid()]
    assert list((tmp_path / "launchers").iterdir()) == []


def test_a_launcher_is_asked_to_stop_and_no_one_elsewhere_is(launcher, tmp_path):
    (path,) = (tmp_path / "launchers").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "elsewhere"}))  # the lock stays
    assert list(active_launchers.stop(tmp_path, patience=0.2).values()) == ["runs on another machine; cancel it there"]
    assert launcher.poll() is None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": os.uname().nodename}))
    assert list(active_launchers.stop(tmp_path, patience=20).values()) == ["has stopped"]
    assert launcher.wait(timeout=20) != 0
    assert active_launchers.stop(tmp_path, patience=0) == {}


def test_who_is_asked_to_stop_where_nothing_listens_ends_as_by_ctrl_c(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped, active_launchers.launching(tmp_path):
        active_launchers.stop(tmp_path, patience=0)
    assert stopped.value.signal == signal.SIGTERM
    assert active_launchers.find(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(Interrupted), active_launchers.launching(tmp_path):  # where runs have checkpoints
        signal.raise_signal(signal.SIGINT)
    with StopRequest() as request, active_launchers.launching(tmp_path):  # as under torchrun: all ranks stop together
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
    assert request.received == [signal.SIGINT, signal.SIGHUP]
