"""Copies of tensors in the memory of the host, made while the device goes on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

BYTES_AT_ONCE = 2**28  # gathered on the device for one transfer, unless a single tensor is larger


class HostCopy:
    """A copy of nested dictionaries and lists, made when the object is: the originals may change at once.

    Tensors of a GPU are gathered there and transferred to pinned memory, in one piece per dtype and BYTES_AT_ONCE, in
    the order of the current stream: the host waits only in `content`. Strides are kept. Each copy has a storage of its
    own, so `torch.save` writes it as it would write the original.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self._transferred: list[torch.cuda.Event] = []
        tensors = [it for it in tree_leaves(content) if isinstance(it, Tensor) and it.numel()]
        copies = dict[int, Any]()  # deepcopy takes these for copies that it has made
        for group in _groups(tensors):
            copies |= {id(tensor): copied for tensor, copied in zip(group, self._copied(group), strict=True)}
        self._content = copy.deepcopy(content, copies)

    def content(self) -> dict[str, Any]:
        """Return the copy, once the device has transferred it."""
        for event in self._transferred:
            event.synchronize()
        return self._content

    def _copied(self, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
        flat = torch.cat([tensor.detach().permute(_descending(tensor)).reshape(-1) for tensor in tensors])
        memory = self._on_host(flat).view(torch.uint8).numpy()
        start = 0
        for tensor in tensors:
            piece = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start)
            start += tensor.nbytes
            order = _descending(tensor)
            yield piece.view([tensor.shape[axis] for axis in order]).permute([order.index(it) for it in sorted(order)])

    def _on_host(self, flat: Tensor) -> Tensor:
        if flat.device.type != "cuda":
            return flat.cpu()
        there = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        there.copy_(flat, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # the waiting thread leaves its core to others
        event.record(torch.cuda.current_stream(flat.device))
        self._transferred.append(event)
        return there


def _groups(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of one device and dtype, together of at most BYTES_AT_ONCE or alone."""
    pending = dict[tuple[torch.device, torch.dtype], list[Tensor]]()
    for tensor in tensors:
        group = pending.setdefault((tensor.device, tensor.dtype), [])
        if group and sum(it.nbytes for it in group) + tensor.nbytes > BYTES_AT_ONCE:
            yield group
            group = pending[tensor.device, tensor.dtype] = []
        group.append(tensor)
    yield from pending.values()


def _descending(tensor: Tensor) -> list[int]:
    """Return the axes in the order of their strides: a dense tensor permuted to it is contiguous."""
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
