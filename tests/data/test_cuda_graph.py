"""A recorded function is the function; the recording itself needs a GPU."""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from headsweep.data.cuda_graph import Recorded


def both_signs(values):
    return values + 1, -values


def test_without_a_gpu_it_is_called():
    calls = []
    recorded = Recorded(lambda values: calls.append(values) or both_signs(values))
    for number in range(3):
        up, down = recorded(torch.tensor([number]))
        assert (up.item(), down.item()) == (number + 1, -number)
    assert len(calls) == 3


def test_other_shapes_than_the_recorded_ones_are_no_replay(monkeypatch):
    class Graph:
        def replay(self):
            raise NotImplementedError

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr("headsweep.data.cuda_graph._warm_up", lambda *_: None)
    recorded = Recorded(both_signs)
    with FakeTensorMode():
        for _ in range(2):
            with pytest.raises(NotImplementedError):
                recorded(torch.zeros(3, device="cuda"))
            up, _ = recorded(torch.zeros(4, device="cuda"))
            assert up.shape == (4,)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("operation not permitted\nCompile with ..."), "operation not permitted"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_where_recording_fails_it_is_called_and_one_line_gives_the_reason(error, reason, monkeypatch, recwarn):
    def refuse():
        try:
            raise error
        finally:
            raise RuntimeError("capture_end: the capture is no longer valid")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", refuse)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    recorded = Recorded(both_signs)
    with FakeTensorMode():
        for _ in range(2):
            up, _ = recorded(torch.zeros(3, device="cuda"))
            assert up.device.type == "cuda"
    (warning,) = recwarn
    assert str(warning.message) == f"batches are made without a CUDA graph, which is slower: {reason}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_was_handed_over_stays_though_the_caller_runs_ahead():
    recorded = Recorded(both_signs)
    given = torch.arange(200.0, device="cuda")[:, None].expand(200, 1000).contiguous().unbind()
    got = [recorded(values) for values in given]
    assert recorded.replay is not recorded.function
    for number, (up, down) in enumerate(got):
        assert (up == number + 1).all() and (down == -number).all()
