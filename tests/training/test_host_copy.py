"""Copies on the host are those of one moment, and files of them have the bytes of files of the originals."""

import io
from collections import OrderedDict

import pytest
import torch
from torch import Tensor

from headsweep.training import host_copy
from headsweep.training.host_copy import HostCopy


def content() -> dict[str, object]:
    state = OrderedDict(weight=torch.randn(4, 3, 2, 2), count=torch.tensor(7), none=torch.empty(0, 3))
    state._metadata = {"": {"version": 2}}
    channels_last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    others = {0: {"exp_avg": channels_last, "step": torch.tensor(1.0)}, 1: {"half": torch.randn(5).bfloat16()}}
    return {"model": state, "optimizer": {"state": others, "groups": [{"lr": 0.1, "params": [0, 1]}]}, "ema": None}


def saved(values: object) -> bytes:
    memory = io.BytesIO()
    torch.save(values, memory)
    return memory.getvalue()


@pytest.mark.parametrize("at_once", [1, 64, 2**28])
def test_a_file_of_the_copy_is_the_file_of_the_originals(monkeypatch, at_once):
    monkeypatch.setattr(host_copy, "BYTES_AT_ONCE", at_once)
    original = content()
    assert saved(HostCopy(original).content()) == saved(original)


def test_later_changes_are_not_in_the_copy():
    original = content()
    expected, made = saved(original), HostCopy(original)
    original["model"]["weight"].zero_()
    original["optimizer"]["state"][0]["step"] += 1
    original["optimizer"]["groups"][0]["lr"] = 0.0
    assert saved(made.content()) == expected != saved(original)


def test_views_that_are_not_dense_are_copied():
    original = {"expanded": torch.ones(1, 3).expand(2, 3), "every other": torch.arange(10)[::2]}
    copied = HostCopy(original).content()
    assert all(torch.equal(copied[name], value) for name, value in original.items())


@pytest.mark.parametrize(("at_once", "groups"), [(1, 4), (16, 2), (2**28, 1)])
def test_as_much_is_gathered_at_once_as_there_is_memory_for(monkeypatch, at_once, groups):
    monkeypatch.setattr(host_copy, "BYTES_AT_ONCE", at_once)
    assert len(list(host_copy._groups(torch.ones(4, 2)))) == groups


class OnGpu(Tensor):
    """A tensor that is taken for one of a GPU."""

    device = property(lambda self: torch.device("cuda", 0))


def test_the_host_waits_for_the_transfer_only_where_it_reads(monkeypatch):
    happened = []

    class Event:
        def __init__(self, blocking: bool):
            assert blocking

        def record(self, stream: str) -> None:
            happened.append(f"recorded on {stream}")

        def synchronize(self) -> None:
            happened.append("waited")

    class Pinned(Tensor):
        def copy_(self, other: Tensor, non_blocking: bool) -> Tensor:
            assert non_blocking
            happened.append("transfer")
            return super().copy_(other.as_subclass(Tensor))

    def empty(shape: torch.Size, dtype: torch.dtype, pin_memory: bool) -> Tensor:
        assert pin_memory
        return torch.zeros(shape, dtype=dtype).as_subclass(Pinned)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr(torch, "empty", empty)
    values = torch.arange(3.0)
    made = HostCopy({"a": values[:2].as_subclass(OnGpu), "b": values[2:].as_subclass(OnGpu)})
    assert happened == ["transfer", "recorded on the stream of cuda:0"]
    assert {name: value.tolist() for name, value in made.content().items()} == {"a": [0.0, 1.0], "b": [2.0]}
    assert happened[2:] == ["waited"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_later_kernels_do_not_change_the_copy():
    values = torch.arange(10.0**7, device="cuda")
    expected, made = values.cpu(), HostCopy({"values": values})
    values.zero_()
    assert torch.equal(made.content()["values"], expected)
