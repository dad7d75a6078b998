"""Training that leaves no trace, to learn how fast a run is and what it takes of memory.

What the processes of `throughput` and `batch_size` do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection

import torch

from headsweep.config import RunConfig
from headsweep.errors import ConfigError
from headsweep.run.train_run import rehearse
from headsweep.training.device import peak_gpu_memory, peak_memory
from headsweep.training.loop import Training

THROWN_AWAY = 3  # first steps: they compile, choose kernels and fill the allocator's pool
TIMED = 2  # steps that say how long one takes
AHEAD = 2  # steps that a GPU may be behind the host, which never waits for it in training

# Steps after which a run has held all that it ever will: the optimizer's moments come with the first, and a GPU's
# graphs are recorded after some that warm it up.
CPU_STEPS, GPU_STEPS = 2, THROWN_AWAY + TIMED


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


def memory(run: RunConfig) -> tuple[float, int]:
    """What this process has held at most, in GiB of the device's memory, and the images in a training epoch's batches.

    Raises:
        ConfigError: the device does not tell how much memory was taken.
    """
    training = rehearse(run)
    if training.device.type == "mps":
        raise ConfigError("batch_size", "auto", "memory is not measured on mps; want a number")
    on_gpu = training.device.type == "cuda"
    for _ in islice(step_ends(training), GPU_STEPS if on_gpu else CPU_STEPS):
        pass
    taken = peak_gpu_memory(training.device) or peak_memory()
    return taken, training.batches.steps_per_epoch * run.batch_size


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
