"""Training that leaves no trace, to learn how fast a run is. What a process of it does; see `throughput`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import torch

from headsweep.config import RunConfig
from headsweep.sweep.one_run import rehearse
from headsweep.training.loop import Training

THROWN_AWAY = 3  # first steps: they compile, choose kernels and fill the allocator's pool
TIMED = 2  # steps that say how long one takes
AHEAD = 2  # steps that a GPU may be behind the host, which never waits for it in training


def time_steps(run: RunConfig, connection: Connection) -> None:
    """Train until killed, and tell how fast in a window of time that is asked for.

    Sent: seconds a step, once the first steps are done; received: start and end of the window, as `time.monotonic`
    has them in all processes; sent: images a second in that window, between the ends of steps.
    """
    ends = step_ends(rehearse(run))
    for _ in range(THROWN_AWAY - 1):
        next(ends)
    begun = next(ends)
    *_, ended = (next(ends) for _ in range(TIMED))
    connection.send((ended - begun) / TIMED)
    while not connection.poll():  # the others are not so far yet: leave them no more of the machine than in the window
        next(ends)
    start, end = connection.recv()
    first = next(moment for moment in ends if moment >= start)
    for steps, moment in enumerate(ends, 1):
        if moment >= end:
            connection.send(steps * run.batch_size / (moment - first))
            break
    for _ in ends:  # as above, until killed
        pass


def step_ends(training: Training) -> Iterator[float]:
    """When each step was over, by `time.monotonic`; the host is a few steps ahead of a GPU, as in training."""
    ahead = AHEAD if training.device.type == "cuda" else 0
    under_way: deque[Callable[[], object]] = deque()
    for _ in training.rehearsal():
        under_way.append(_mark(training.device))
        if len(under_way) > ahead:
            under_way.popleft()()
            yield time.monotonic()


def _mark(device: torch.device) -> Callable[[], object]:
    """What waits until the device has done all that it was told so far."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event(blocking=True)  # else waiting would take a core from the other runs
    event.record()
    return event.synchronize
