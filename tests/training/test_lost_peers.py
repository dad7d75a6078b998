"""Which errors of a collective mean that another process is gone, so that a job goes on, and which are failures."""

import pytest
import torch
import torch.distributed as dist

from headsweep.errors import ConfigError, LostPeer
from headsweep.training import ranks as module
from headsweep.training.ranks import Ranks

GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] "
LOST = [
    RuntimeError(GLOO + "Connection closed by peer [127.0.0.1]:33291"),
    RuntimeError(GLOO + "Read error [10.0.0.1]:40000: Connection reset by peer"),
    RuntimeError("[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 1800000ms for recv"),
    RuntimeError("Application timeout caused pair closure"),
    dist.DistNetworkError("The client socket has timed out after 300s"),
    dist.DistStoreError("wait timeout after 300000ms, keys: /default_pg/0//0"),
    dist.DistBackendError("NCCL error: remote process exited or there was a network error\nncclRemoteError: ..."),
]
FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: the launch timed out and was terminated"),
    dist.DistBackendError(
        "NCCL error: invalid usage\nDuplicate GPU detected : rank 0 and rank 1 both on CUDA device 1b"
    ),
    dist.DistBackendError("NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)"),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
]


def reduction_that_raises(monkeypatch, error):
    def all_reduce(values):
        raise error

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    Ranks(0, 2).sum(torch.zeros(1))


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_lost_connection_or_a_timeout_is_a_lost_peer(monkeypatch, error):
    with pytest.raises(LostPeer, match="lost another process"):
        reduction_that_raises(monkeypatch, error)


@pytest.mark.parametrize("error", FAILURES, ids=str)
def test_an_error_of_memory_or_of_a_device_is_a_failure_of_this_process(monkeypatch, error):
    with pytest.raises(type(error)) as raised:
        reduction_that_raises(monkeypatch, error)
    assert raised.value is error


class Properties:
    uuid = "1b"


def test_two_ranks_on_one_gpu_are_refused_before_nccl_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setenv("LOCAL_RANK", "1")
    ranks = Ranks(1, 2)
    monkeypatch.setattr(module.dist, "all_gather_object", lambda values, value: values.__setitem__(0, "other"))
    assert ranks.device(torch.device("cuda")) == torch.device("cuda", 0)
    monkeypatch.setattr(module.dist, "all_gather_object", lambda values, value: values.__setitem__(0, value))
    with pytest.raises(ConfigError, match="expected a GPU per rank, found 2 ranks on GPU 1b"):
        ranks.device(torch.device("cuda"))
