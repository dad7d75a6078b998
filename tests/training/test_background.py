"""Files are written one after the other while training goes on, and no error is lost."""

import threading

import pytest

from headsweep.training.background import BackgroundWriter
from headsweep.training.progress import Stopped


class DiskFullError(OSError):
    pass


def fail() -> None:
    raise DiskFullError


def test_the_caller_goes_on_while_a_job_runs_and_the_second_waits_for_the_first():
    happened, may_end = [], threading.Event()

    def slow() -> None:
        assert may_end.wait(10)
        happened.append("first")

    with BackgroundWriter() as writer:
        writer.start(slow)
        writer.check()
        happened.append("caller")
        threading.Timer(0.05, may_end.set).start()
        writer.start(lambda: happened.append("second"))
        assert happened == ["caller", "first"] or happened == ["caller", "first", "second"]
        writer.wait()
        assert happened == ["caller", "first", "second"]


@pytest.mark.parametrize("find", ["check", "wait", "start"])
def test_an_error_is_raised_once_by_what_finds_it(find):
    with BackgroundWriter() as writer:
        writer.start(fail)
        writer._job.exception()  # it has failed
        with pytest.raises(DiskFullError):
            writer.start(lambda: None) if find == "start" else getattr(writer, find)()
        writer.check()
        writer.wait()


@pytest.mark.parametrize(
    ("error", "raised"), [(None, DiskFullError), (Stopped, DiskFullError), (ValueError, ValueError)], ids=str
)
def test_the_end_waits_and_replaces_a_stop_but_not_an_error(error, raised):
    started, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        assert may_end.wait(10)
        fail()

    with pytest.raises(raised), BackgroundWriter() as writer:
        writer.start(slow)
        assert started.wait(10)
        threading.Timer(0.05, may_end.set).start()
        if error is not None:
            raise error
    assert may_end.is_set(), "it has waited"


def test_without_a_job_there_is_nothing_to_wait_for():
    with pytest.raises(Stopped), BackgroundWriter():
        raise Stopped
    with BackgroundWriter() as writer:
        writer.wait()
