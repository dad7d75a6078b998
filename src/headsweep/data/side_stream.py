"""Make batches on a CUDA stream of their own: a GPU augments the next batch while it trains on the last one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch

from headsweep.data.batches import TrainBatch

# Steps that the host may be ahead of the GPU. It has enough to do with them, and the memory of a batch is used again
# only when its step has ended: without a limit, a host that is far ahead takes new memory for each batch.
AHEAD = 3


class SideStream:
    """Makes the batches of a loader on its stream; on any other device than a GPU, nothing changes.

    A batch is still made when it is asked for, so that the host does all in the order that it has without a stream.
    """

    def __init__(self, device: torch.device) -> None:
        # One for all epochs: memory that was used on a stream is used again on that stream alone.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batches: Iterator[TrainBatch]) -> Iterator[TrainBatch]:
        """Return the batches, for use on the stream that is current where they are asked for."""
        return batches if self._stream is None else self._made(self._stream, batches)

    def _made(self, aside: torch.cuda.Stream, batches: Iterator[TrainBatch]) -> Iterator[TrainBatch]:
        aside.wait_stream(torch.cuda.current_stream(aside.device))  # which filled the tensors of the loader
        ends: deque[torch.cuda.Event] = deque()  # of the steps on the batches
        while True:
            with torch.cuda.stream(aside):
                batch = next(batches, None)
            if batch is None:
                return
            user = torch.cuda.current_stream(aside.device)
            user.wait_stream(aside)
            for tensor in batch:
                tensor.record_stream(user)  # its memory is not used again before the user is done
            yield batch
            ends.append(user.record_event(torch.cuda.Event(blocking=True)))
            if len(ends) > AHEAD:
                ends.popleft().synchronize()
