"""Batches are made beside the step and used after they are made, as fake streams see it."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from headsweep.data.side_stream import AHEAD, SideStream

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class FakeStream:
    """Counts the work that it is given; knows after which work of the other it comes."""

    current: FakeStream

    def __init__(self, device: torch.device) -> None:
        self.device, self.work, self.after = device, 0, 0

    def wait_stream(self, other: FakeStream) -> None:
        self.after = other.work

    def record_event(self, event: FakeEvent) -> FakeEvent:
        event.work = self.work
        return event


class FakeEvent:
    waited: int  # the work of the user's stream that the host has waited for

    def __init__(self, blocking: bool) -> None:
        assert blocking

    def synchronize(self) -> None:
        FakeEvent.waited = self.work


class FakeTensor:
    """Is made by the work that its stream has got."""

    def __init__(self) -> None:
        FakeStream.current.work += 1
        self.stream, self.made, self.users = FakeStream.current, FakeStream.current.work, []

    def record_stream(self, stream: FakeStream) -> None:
        self.users.append(stream)


@pytest.fixture
def user(monkeypatch) -> FakeStream:
    """The stream of the training steps."""

    @contextmanager
    def entered(stream: FakeStream):
        before, FakeStream.current = FakeStream.current, stream
        try:
            yield
        finally:
            FakeStream.current = before

    FakeStream.current, FakeEvent.waited = FakeStream(GPU), 0
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream.current)
    return FakeStream.current


def made(batches: int):
    for _ in range(batches):
        yield tuple(FakeTensor() for _ in range(3))


def test_a_batch_is_used_after_it_is_made_and_its_memory_is_kept_until_then(user):
    for batch in SideStream(GPU)(made(10)):
        assert FakeStream.current is user
        assert all(tensor.stream is not user and tensor.made <= user.after for tensor in batch)
        assert all(tensor.users == [user] for tensor in batch)
        user.work += 1
    assert FakeStream.current is user


def test_a_batch_is_made_beside_the_step_before_it_but_after_what_was_there_at_first(user):
    user.work, aside = 7, SideStream(GPU)
    for batch in aside(made(5)):
        assert batch[0].stream.after == 7, "no batch waits for a step"
        user.work += 1
    user.work += 1  # an evaluation, say
    assert next(aside(made(1)))[0].stream.after == user.work


def test_the_host_is_only_so_many_steps_ahead(user):
    for step, _ in enumerate(SideStream(GPU)(made(10))):
        assert FakeEvent.waited == max(0, step - AHEAD)
        user.work += 1


def test_all_epochs_have_one_stream(user):
    aside = SideStream(GPU)
    assert next(aside(made(1)))[0].stream is next(aside(made(1)))[0].stream


def test_an_error_in_a_batch_leaves_the_stream_of_the_user(user):
    def broken():
        raise OSError
        yield

    with pytest.raises(OSError):
        next(SideStream(GPU)(broken()))
    assert FakeStream.current is user


def test_on_a_cpu_the_batches_are_those_of_the_maker():
    batches = iter(())
    assert SideStream(CPU)(batches) is batches
