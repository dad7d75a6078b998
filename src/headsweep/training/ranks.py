"""The processes that train one run together, each on a share of every batch.

With one process all of it is the identity, so that the loop is written once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from headsweep.errors import ConfigError, LostPeer
from headsweep.text import first_line, last_line

T = TypeVar("T")
# As gloo, NCCL and sockets word it. NCCL's ncclSystemError is of a socket or of this machine's memory: a failure.
_CONNECTION = re.compile(
    r"connection (closed|reset|refused|abort)|connect(ion)? time|timed? ?out|broken pipe|pair closure|no route to host"
    r"|socket closed|ncclRemoteError|remote process exited",
    re.IGNORECASE,
)
FAILURE = "failure"  # key of the store for the reason of the first failed rank


class Ranks:
    """This process, number `rank` of `count`. All methods but `failure` are collective."""

    def __init__(self, rank: int = 0, count: int = 1, store: dist.Store | None = None) -> None:
        """`store` is shared by all ranks; a single process needs none."""
        self.rank, self.count, self._store = rank, count, store

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, the only one that writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values` over the ranks, in place: the same bits on each. Raises LostPeer, as all below do."""
        if self.count > 1:
            with _meeting():
                dist.all_reduce(values)
        return values

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each of the tensors by its mean over the ranks, in one reduction."""
        if self.count == 1:
            return
        flat = self.sum(torch.cat([tensor.flatten() for tensor in tensors])) / self.count
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank; runs on the host, without a device sync."""
        return bool(self.sum(torch.tensor(int(flag))))

    def gather(self, value: T) -> list[T]:
        """Return the value of each rank, by rank; `value` is pickled."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        with _meeting():
            dist.all_gather_object(values, value)
        return values

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this rank.

        Raises:
            ConfigError: there are fewer GPUs than ranks on this machine, or the device cannot be shared.
            LostPeer: as all others.
        """
        if self.count == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or device.index is not None:
            raise ConfigError("device", device, f"expected cuda or cpu: {self.count} ranks need a GPU each")
        gpus, local = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
        if 1 < gpus <= local:
            raise ConfigError("device", device, f"expected a GPU per rank, found {gpus}; use --nproc-per-node {gpus}")
        mine = torch.device("cuda", local if gpus > 1 else 0)  # if only one GPU is visible, the launcher chose it
        torch.cuda.set_device(mine)
        gpu = str(torch.cuda.get_device_properties(mine).uuid)
        if (sharing := self.gather(gpu).count(gpu)) > 1:
            raise ConfigError("device", device, f"expected a GPU per rank, found {sharing} ranks on GPU {gpu}")
        return mine

    def is_first_to_fail(self, reason: str) -> bool:
        """Report the last line of `reason` to the other ranks, which this rank leaves.

        Returns:
            Whether no other rank has failed before.
        """
        if self._store is None:
            return True
        line = f"rank {self.rank}: {last_line(reason)}".encode()
        try:
            return self._store.compare_set(FAILURE, "", line.decode()) == line
        except RuntimeError:  # the process of the store has ended
            return True

    def failure(self) -> str | None:
        """Return which other rank failed and why, in one line; None if none reported a failure."""
        try:
            return self._store.get(FAILURE).decode() if self._store and self._store.check([FAILURE]) else None
        except RuntimeError:  # the process of the store has ended
            return None


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other ranks by torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, ...)."""
    store, rank, count = next(iter(dist.rendezvous("env://")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _meeting():
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    yield Ranks(rank, count, store)
    dist.destroy_process_group()  # not after an error: an orderly end would wait for lost ranks


def _is_of_connection(error: RuntimeError) -> bool:
    """Return whether another process may have ended: gloo raises RuntimeError for everything, NCCL DistBackendError."""
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    is_of_library = type(error) in (RuntimeError, dist.DistBackendError)  # not of memory or CUDA, which are subclasses
    message = str(error)
    return is_of_library and "CUDA error" not in message and bool(_CONNECTION.search(message))


@contextmanager
def _meeting() -> Iterator[None]:
    """Raise LostPeer for a lost connection or a timeout; any other error, as of memory or CUDA, is this process's."""
    try:
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        reason = first_line(error).partition(". ")[0]  # the rest is advice
        raise LostPeer(f"lost another process of this run ({reason})") from error
