"""The processes that train one run together, each a share of every batch: what they sum, and what they agree on.

With one process all of it is the identity, so that the loop is written once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from headsweep.errors import ConfigError, LostPeer

T = TypeVar("T")
FAILURE = "failure"  # key of the store under which the first rank that fails says why


class Ranks:
    """This process, number `rank` of `count`. Every method but `device` and `failure` is a meeting of all ranks."""

    def __init__(self, rank: int = 0, count: int = 1, store: dist.Store | None = None) -> None:
        """`store` is shared by all ranks; one process alone needs none."""
        self.rank, self.count, self._store = rank, count, store

    @property
    def leads(self) -> bool:
        """Is this rank 0, which alone writes?"""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values`, in place, summed over the ranks: the same bits on each. Raises LostPeer, as all below do."""
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
        """Is it so on any rank? On the host, whatever the device does."""
        return bool(self.sum(torch.tensor(int(flag))))

    def gather(self, value: T) -> list[T]:
        """What each rank says, by rank; `value` is pickled."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        with _meeting():
            dist.all_gather_object(values, value)
        return values

    def device(self, device: torch.device) -> torch.device:
        """The device of this rank.

        Raises:
            ConfigError: there are fewer GPUs than ranks on this machine, or the device cannot be shared.
        """
        if self.count == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or device.index is not None:
            raise ConfigError("device", device, f"{self.count} ranks want a GPU each; want device=cuda or device=cpu")
        gpus, local = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
        if 1 < gpus <= local:
            raise ConfigError("device", device, f"{gpus} GPUs for more ranks; want --nproc-per-node {gpus}")
        mine = torch.device("cuda", local if gpus > 1 else 0)  # with one GPU to be seen, the launcher has chosen it
        torch.cuda.set_device(mine)
        return mine

    def is_first_to_fail(self, reason: str) -> bool:
        """Tell the others by the last line of `reason` why the run fails: they will meet this rank no more.

        Returns:
            Whether no other rank has failed before.
        """
        if self._store is None:
            return True
        told = f"rank {self.rank}: {reason.strip().splitlines()[-1]}".encode()
        return self._store.compare_set(FAILURE, "", told.decode()) == told

    def failure(self) -> str | None:
        """Which other rank has failed and why, in a line; None if none has said so."""
        try:
            return self._store.get(FAILURE).decode() if self._store and self._store.check([FAILURE]) else None
        except RuntimeError:  # whoever keeps the store is gone
            return None


@contextmanager
def joined() -> Iterator[Ranks]:
    """Meet the other ranks, whose number and place torchrun's variables say (RANK, WORLD_SIZE, MASTER_ADDR, ...)."""
    store, rank, count = next(iter(dist.rendezvous("env://")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _meeting():
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    yield Ranks(rank, count, store)
    dist.destroy_process_group()  # after an error the system closes the connections: good order waits for who is gone


@contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().split("\n", 1)[0].partition(". ")[0]  # what follows is good advice
        raise LostPeer(f"another process of this run is gone ({reason})") from error
