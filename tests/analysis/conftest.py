"""What tests of several analyses need."""

import subprocess
from types import SimpleNamespace

import pytest

from programs import Program


@pytest.fixture
def warm(monkeypatch):
    """The command that trains again is started warm."""

    def start(command, env, stdout, start_new_session):
        return Program(command[1:], env=env, new_session=start_new_session)

    stands_in = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr("headsweep.analysis.reproduce.subprocess", stands_in)
