"""What a launcher makes of its processes: silence, stops of its own, ends without a message, a full disk.

The processes are stand-ins: what each sends, and its exit code, are written down beforehand.
"""

import errno
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from factories import hand_made, planned
from headsweep.errors import UserError
from headsweep.launch.local import timeout_clock
from headsweep.launch.local.pool import LocalPool
from headsweep.launch.local.scheduler import BUSY, UNKNOWN, Schedule
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.plan.code_of_runs import code_by_run, record_code
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from headsweep.training.progress import Notice


class Process:
    """Sends all its messages at once. With an exit code it is gone then, without one it hangs until it is killed."""

    def __init__(self, exitcode: int | None, *said: object) -> None:
        self.connection, self.far = Pipe()
        for word in said:
            self.far.send(word if isinstance(word, tuple) else (0, word))
        if exitcode is not None:
            self.end(exitcode)

    def end(self, exitcode: int) -> None:
        self.exitcode = exitcode
        self.far.close()

    def kill(self) -> None:
        self.end(-9)

    def join(self) -> None:
        pass


@pytest.fixture
def make_run(tmp_path):
    def make(name: str) -> RunFolder:
        return hand_made(tmp_path, name)

    return make


def train(
    folders: list[RunFolder], processes: list, slots: int = 1, timeout: float | None = None, more_memory: str = ""
) -> list[RunFolder]:
    """Let them train; a process may be what its start raises, or a function that is called for it. The runs, begun."""
    begun, left = [], iter(processes)

    def start(folders: Sequence[RunFolder], gpu: str | None):
        process = next(left)
        if isinstance(process, Exception):
            raise process
        begun.extend(folders)
        process = process() if callable(process) else process
        return process, process.connection

    with Display(len(folders), epoch_lines=False) as display:
        Schedule(folders, Slots(slots, 1, ()), start, timeout, display, lambda folder: None, None, more_memory)()
    return begun


def finishes(folder: RunFolder, exitcode: int = 0):
    def process() -> Process:
        folder.finish(RunResult("finished", {}, 1, 1))
        return Process(exitcode)

    return process


def test_a_run_that_is_silent_for_longer_than_the_timeout_is_killed(make_run):
    run = make_run("a")
    train([run], [Process(None)], timeout=0.01)
    assert run.failure() == "no progress for 0.01 minutes (hydra.launcher.timeout): killed\n"


def test_a_launcher_that_was_stopped_for_an_hour_kills_nothing(make_run, monkeypatch):
    """As after Ctrl-Z and `fg`: an hour passes between two polls, twice."""
    run, process = make_run("a"), Process(None)

    def moments() -> Iterator[float]:
        yield from (0.0, 3600.0, 7200.0)
        run.finish(RunResult("finished", {}, 1, 1))
        process.end(0)
        yield 7200.2

    monkeypatch.setattr(timeout_clock, "time", SimpleNamespace(monotonic=moments().__next__))
    train([run], [process], timeout=1)
    assert run.failure() is None


def test_only_a_run_that_was_killed_from_outside_is_told_how_to_get_more_memory(make_run):
    killed, crashed, silent = runs = [make_run(name) for name in "abc"]
    ends = [-signal.SIGKILL, -signal.SIGKILL, -signal.SIGSEGV, None]
    train(runs, [Process(end) for end in ends], timeout=0.01, more_memory="ask for 2 GB")
    why = "the process was killed by signal 9 (SIGKILL; the system sends it when memory runs out); ask for 2 GB\n"
    assert killed.failure() == why and killed.failed_tries() == 2
    assert all("ask for" not in str(run.failure()) for run in (crashed, silent))


def test_a_real_time_signal_has_no_name(make_run):
    run = make_run("a")
    train([run], [Process(-40)])
    assert run.failure() == "the process was killed by signal 40 (a real-time signal)\n"


@pytest.mark.parametrize("is_over", [True, False])
def test_how_a_run_ended_whose_forkserver_was_killed_is_found_out_by_beginning_it_again(make_run, is_over):
    run = make_run("a")
    begun = train([run], [Process(UNKNOWN), finishes(run) if is_over else Process(UNKNOWN)])
    assert begun == [run, run]
    assert run.failure() == (None if is_over else "the process ended with exit code 255\n")


def test_a_run_that_has_ended_well_under_a_forkserver_that_was_killed_is_not_begun_again(make_run):
    run = make_run("a")
    assert train([run], [finishes(run, UNKNOWN)]) == [run]


def test_a_run_that_gets_no_process_waits_for_the_end_of_another(make_run, capfd):
    first, second = make_run("a"), make_run("b")
    begun = train([first, second], [finishes(first), UserError("no process"), finishes(second)], slots=2)
    assert begun == [first, second]
    assert capfd.readouterr().err.count("no process; waiting for a run to end\n") == 1


def test_no_process_at_all_ends_the_grid_in_a_line(make_run):
    with pytest.raises(UserError, match="no process"):
        train([make_run("a")], [UserError("no process")])


def test_a_failure_that_a_full_disk_does_not_take_is_reported_and_ends_no_other_run(make_run, monkeypatch, capfd):
    bad, good = make_run("a"), make_run("b")

    def full(self, reason: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "fail", full)
    train([bad, good], [Process(1, "checkpoint.pt: No space left on device"), finishes(good)])
    said = capfd.readouterr().err
    assert f"a  checkpoint.pt: No space left on device ({bad.path}: No space left on device)\n" in said
    assert good.result() is not None


@pytest.fixture
def make_group(tmp_path):
    """Runs on the same tokens."""
    config = {"backbone": "frozen", "tokens": {"cache": "float32"}, "head": {"name": "gap"}}
    return lambda names: [hand_made(tmp_path, name, config) for name in names]


def test_a_notice_about_a_run_is_printed(make_group, capfd):
    first, _ = group = make_group("ab")

    def process() -> Process:
        for folder in group:
            folder.finish(RunResult("finished", {}, 1, 1))
        return Process(0, (0, Notice("train-00000.bin is damaged")), (0, 0), (1, 0))

    assert train(group, [process]) == group
    assert f"{first.record().name}: train-00000.bin is damaged" in capfd.readouterr().err.splitlines()


def test_runs_of_a_group_end_one_by_one(make_group, capfd):
    first, failed, busy, last = group = make_group("abcd")

    def process() -> Process:
        first.finish(RunResult("finished", {}, 1, 1))
        return Process(0, (0, 0), (1, "no luck"), (1, 1), (2, BUSY), (3, 1))

    last.fail("its folder has the reason")
    assert train(group, [process, finishes(busy)]) == [*group, busy]
    assert (failed.failure(), last.failed_tries()) == ("no luck\n", 2)
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "stored tokens: 4 runs train in 1 process, 4 at a time on the same batches"
    assert [line[:6] for line in said[1:]] == ["[1/4] ", "[2/4] ", "[3/4] ", "[4/4] "]


@pytest.mark.parametrize(("exitcode", "timeout"), [(-signal.SIGSEGV, None), (-signal.SIGKILL, None), (None, 0.01)])
def test_if_the_process_of_a_group_dies_each_run_continues_in_its_own(make_group, capfd, exitcode, timeout):
    over, guilty, innocent = group = make_group("abc")

    def process() -> Process:
        over.finish(RunResult("finished", {}, 1, 1))
        return Process(exitcode, (0, 0))

    begun = train(group, [process, Process(1, "guilty"), finishes(innocent)], timeout=timeout)
    assert begun == [*group, guilty, innocent]
    assert (guilty.failure(), innocent.failure()) == ("guilty\n", None)
    why = {-11: "SIGSEGV)", -9: "SIGKILL; the system sends it when memory runs out)", None: "killed"}[exitcode]
    assert capfd.readouterr().err.count(f"{why}; the runs that shared it continue, each in its own process\n") == 1


def test_a_group_that_gets_no_process_waits_together(make_group, make_run):
    group, other = make_group("abcd"), make_run("e")

    def both(*folders: RunFolder):
        def process() -> Process:
            for folder in folders:
                folder.finish(RunResult("finished", {}, 1, 1))
            return Process(0, (0, 0), (1, 0))

        return process

    processes = [finishes(other), UserError("no process"), both(*group[:2]), both(*group[2:])]
    assert train([other, *group], processes, slots=2) == [other, *group]


def test_a_run_has_the_code_of_the_command_that_starts_it(tmp_path, monkeypatch):
    """Another command with other code may have recorded its own while the run waited."""
    folder, code = planned(tmp_path), {"commit": "a" * 40, "dirty": False}
    processes = SimpleNamespace(start=Mock(side_effect=UserError("no process")))
    monkeypatch.setattr("headsweep.launch.local.pool.Processes", lambda: processes)
    record_code(code_by_run([folder], code | {"commit": "b" * 40}))
    with Display(1, epoch_lines=False) as display, pytest.raises(UserError, match="no process"):
        LocalPool().train([folder], Slots(1, 1, ()), display, lambda folder: None, code=code)
    assert folder.record().code == code
