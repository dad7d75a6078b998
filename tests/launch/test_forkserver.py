"""Where the system gives no process, no memory or no library, the error is one line."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.forkserver import _forkserver

import pytest

from headsweep.errors import UserError
from headsweep.exit_codes import one_line_errors
from headsweep.launch.local import forkserver, preload
from headsweep.launch.local.forkserver import Processes


@pytest.fixture
def light(monkeypatch):
    """Processes that import nothing beforehand; other tests have a forkserver of their own."""
    monkeypatch.setattr(multiprocessing.context.ForkServerContext, "set_forkserver_preload", lambda *given: None)
    kill_forkserver()
    yield Processes()
    kill_forkserver()


def kill_forkserver() -> None:
    if number := _forkserver._forkserver_pid:
        os.kill(number, signal.SIGKILL)


def test_a_library_that_cannot_be_loaded_is_reported_by_each_process(monkeypatch):
    near, far = Pipe()
    monkeypatch.setattr(preload, "failure", "ImportError: libtorch.so: failed to map segment")
    with pytest.raises(SystemExit):
        forkserver._call("check", (), far)
    assert near.recv() == "ImportError: libtorch.so: failed to map segment"


def test_a_process_that_reports_only_its_failure_ends_the_check(light, monkeypatch):
    def say(*given):
        near, far = Pipe()
        far.send("no memory")
        return multiprocessing.Process(), near

    monkeypatch.setattr(light, "_start", say)
    monkeypatch.setattr(multiprocessing.Process, "kill", lambda self: None)
    with pytest.raises(UserError, match=r"^no memory$"):
        light.ask("check", ())


def test_a_forkserver_that_was_killed_is_started_again(light):
    before = _forkserver._forkserver_pid
    kill_forkserver()
    process, connection = light.start("no_such_task")
    assert _forkserver._forkserver_pid != before
    process.kill()
    process.join()
    connection.close()


@pytest.mark.slow
def test_a_forkserver_that_is_still_ending_is_waited_for(light, monkeypatch):
    start, refusals = light._start, iter([ConnectionRefusedError(111, "Connection refused")] * 2)

    def refuse_twice(*given):
        for refusal in refusals:
            raise refusal
        return start(*given)

    monkeypatch.setattr(light, "_start", refuse_twice)
    process, connection = light.start("no_such_task")
    assert process.pid is not None and next(refusals, None) is None
    process.kill()
    process.join()
    connection.close()


@pytest.mark.slow
def test_no_process_is_a_line(light, monkeypatch):
    calls = []

    def fail():
        calls.append(1)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(forkserver, "ensure_running", fail)
    with pytest.raises(UserError, match=r"expected to start a process, found .*Too many open files; raise the limits"):
        light.start("check")
    assert len(calls) == forkserver.TRIES


@pytest.mark.parametrize("limit", [resource.RLIM_INFINITY, 2**30])
def test_a_single_run_reports_it_in_a_line(monkeypatch, capsys, limit):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise ImportError("libtorch.so: failed to map segment\nmore")
    limited = "expected more address space than the limit of 1024 MiB; raise it (ulimit -v unlimited)"
    advice = limited if limit == 2**30 else "install what is missing, or free memory"
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"headsweep: ImportError: libtorch.so: failed to map segment; {advice}\n"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs PYTHONSAFEPATH")
def test_a_file_of_the_working_directory_is_no_module_of_the_forkserver(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", "import random, sys; sys.path.index('')"]
    ended: list[str] = []

    def ensure_running() -> None:
        ended.append(subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False).stderr)

    ensure_running()
    monkeypatch.setattr(forkserver, "ensure_running", ensure_running)
    forkserver._ensure_server()
    assert "RuntimeError" in ended[0] and "'' is not in list" in ended[1]
