"""Train some steps without writing anything, to measure the speed and memory of a run.

Runs in the processes of `autotune.throughput` and `autotune.batch_size`.
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
from headsweep.run.train_run import trial
from headsweep.training.device import peak_gpu_memory, peak_memory
from headsweep.training.fitting import Fitting
from headsweep.training.loop import Training

WARM_UP = 3  # first steps, not measured: they compile, choose kernels and fill the allocator's pool
TIMED = 2  # steps that estimate the time of one
AHEAD = 2  # steps that the host may be ahead of the GPU, as in training

# Steps after which memory has peaked: optimizer moments are allocated in the first, CUDA graphs are recorded after
# the warm-up.
CPU_STEPS, GPU_STEPS = 2, WARM_UP + TIMED


def time_steps(run: RunConfig, connection: Connection) -> None:
    """Train until killed, and measure the speed within a time window.

    Sends seconds per step after the warm-up; receives start and end of the window (`time.monotonic`, shared by all
    processes); sends images per second in that window, between the ends of steps.
    """
    ends = step_ends(trial(run))
    for _ in range(WARM_UP - 1):
        next(ends)
    begun = next(ends)
    *_, ended = (next(ends) for _ in range(TIMED))
    connection.send((ended - begun) / TIMED)
    while not connection.poll():  # keep the machine as busy as in the window until the others are ready
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
    """Return the peak device memory of this process in GiB, and the images in the batches of an epoch.

    Raises:
        ConfigError: memory cannot be measured on the device.
    """
    training = trial(run)
    if training.device.type == "mps":
        raise ConfigError("batch_size", "auto", "expected a number on mps, where memory cannot be measured")
    on_gpu = training.device.type == "cuda"
    for _ in islice(step_ends(training), GPU_STEPS if on_gpu else CPU_STEPS):
        pass
    taken = peak_gpu_memory(training.device) or peak_memory()
    return taken, training.batches.steps_per_epoch * run.batch_size


def step_ends(training: Training | Fitting) -> Iterator[float]:
    """Yield the end of each step (`time.monotonic`); the host is a few steps ahead of a GPU, as in training."""
    ahead = AHEAD if training.device.type == "cuda" else 0
    under_way: deque[Callable[[], object]] = deque()
    for _ in training.rehearsal():
        under_way.append(_mark(training.device))
        if len(under_way) > ahead:
            under_way.popleft()()
            yield time.monotonic()


def _mark(device: torch.device) -> Callable[[], object]:
    """Return a function that waits until the device has finished the work enqueued so far."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event(blocking=True)  # busy waiting would take a core from other runs
    event.record(torch.cuda.current_stream(device))  # by default of the current device, which may be another one
    return event.synchronize
