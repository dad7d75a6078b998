"""`batch_size=auto`: the largest power of two at which every cell of a grid fits into its device's memory.

Each distinct cell is measured at two batch sizes, in a process of its own, by real training steps; larger sizes are
extrapolated linearly. The limit is a share of the total memory, not of what is free now, and measurements are stored:
the same command must plan the same runs again.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headsweep.autotune import host_memory
from headsweep.autotune.measurement import NO_MEMORY, Unmeasured, memory
from headsweep.config import RunConfig
from headsweep.config.auto_batch_size import AUTO, KEY
from headsweep.config.keys import flat, has_trait, without_neutral
from headsweep.config.traits import MEMORY
from headsweep.errors import ConfigError, UserError
from headsweep.launch.local import gpus as driver
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.slots import Slots
from headsweep.launch.signals import StopRequest
from headsweep.plan.run_names import run_names
from headsweep.tracking.measurements import Measurements

MOST = 4096  # images; larger batches cost accuracy before they gain speed
SHARE = 0.9  # of the memory available to a run; evaluation and libraries need the rest
LEAST, PROBE = 8, 128  # batch sizes at which memory is measured, if the training set is as large


@dataclass(frozen=True)
class Room:
    """Memory available to each run."""

    device: str  # name
    gib: float  # memory for one run
    gpu: str | None  # UUID; None: the CPU
    runs: int  # that share the device
    threads: int  # CPU threads of each run

    @staticmethod
    def of(slots: Slots) -> Room:
        """Return the memory per run on the smallest of the GPUs, or of the host."""
        if not slots.gpus:
            device = platform.processor() or platform.machine()
            return Room(device, host_memory.usable_gib() / slots.count, None, slots.count, slots.threads)
        gpu = min(slots.gpus, key=driver.total_gib)
        total = driver.total_gib(gpu)
        runs = -(-slots.count // len(slots.gpus))
        total = host_memory.usable_gib() if math.isinf(total) else total  # GPU and CPU share memory
        return Room(driver.name(gpu), total / runs, gpu, runs, slots.threads)

    def __str__(self) -> str:
        return f"{self.gib:.1f} GiB{' a run' if self.runs > 1 else ''}"


@dataclass(frozen=True)
class Answer:
    """What one measurement found."""

    gib: float | None  # None: out of memory
    images: int | None  # in the full batches of an epoch


class Footprint:
    """Memory of one cell by batch size."""

    def __init__(self, run: RunConfig, room: Room, ask: Callable[[RunConfig], Answer] | None) -> None:
        """Measure with `ask`; without it, only stored measurements are used."""
        self.run, self._room, self._ask = run, room, ask
        self._memory = Measurements(Path(run.paths.output), "memory")
        self._key = {"cell": memory_class(run), "device": room.device, "on": "gpu" if room.gpu else "cpu"}
        known = self._memory.get(self._key) or {"needs": {}, "images": None}
        self._needs: dict[int, float | None] = {int(size): need for size, need in known["needs"].items()}
        self._images: int | None = known["images"]
        self.least = max(LEAST, 2 * run.accumulation)

    @property
    def name(self) -> str:
        """Readable name of the cell."""
        return f"{self.run.head.name} heads={self.run.heads} of {self.run.model.name}"

    @property
    def most(self) -> int:
        """Largest power of two up to the number of training images and MOST."""
        self.need(self.least)
        images = self._images or self.least  # if even the smallest batch does not fit, the number does not matter
        return min(MOST, 2 ** (images.bit_length() - 1))

    @property
    def probe(self) -> int:
        """Larger of the two measured batch sizes."""
        return max(self.least, min(PROBE, self.most))

    def need(self, size: int) -> float | None:
        """Return the measured GiB at a batch size; None: out of memory.

        Raises:
            UserError: it is not stored and must not be measured now, or the run fails.
        """
        if size not in self._needs:
            if self._ask is None:
                raise ConfigError(KEY, AUTO, "not measured yet; the command itself, or `headsweep plan`, measures it")
            is_probe = size <= max(PROBE, self.least)
            answer = self._ask(replace(_short(self.run) if is_probe else self.run, batch_size=size))
            self._needs[size] = answer.gib
            self._images = answer.images if self._images is None else self._images
            self._memory.put(self._key, {"needs": self._needs, "images": self._images, "name": self.name})
        return self._needs[size]

    def expected(self, size: int) -> float:
        """Return GiB at a batch size: measured, else extrapolated linearly; infinite: out of memory."""
        if size in self._needs:
            need = self._needs[size]
            return math.inf if need is None else need
        low, high = self.need(self.least), self.need(self.probe)
        if low is None or high is None:
            return math.inf
        slope = (high - low) / max(1, self.probe - self.least)
        return high + max(0.0, slope) * (size - self.probe)

    def largest(self, limit: float) -> int:
        """Return the largest power of two that takes at most `limit` GiB; 0: none."""
        size = self.most
        while size >= self.least:
            if size <= self.probe:
                self.need(size)
            if self.expected(size) <= limit:
                return size
            size //= 2
        return 0


def fitting(runs: Sequence[RunConfig], room: Room, measure: bool, log: Callable[[str], object]) -> int:
    """Return the batch size that fits all of `runs`, whatever batch size they have now.

    Args:
        runs: checked and resolved.
        room: memory available to each run.
        measure: measure what is not stored, else raise.
        log: prints a line about the result, and one before a measurement.

    Raises:
        UserError: nothing fits, a run cannot be trained, or a measurement is missing.
    """
    ask = _Measurement(room, log) if measure else None
    cells = [Footprint(run, room, ask) for run in _distinct(runs)]
    limit = SHARE * room.gib
    size = min(cell.largest(limit) for cell in cells)
    if not size:
        raise _nothing_fits(cells, room)
    largest = max(cells, key=lambda cell: cell.expected(size))
    if room.gpu:
        size = _tried(largest, size, room, limit)
    log(f"{KEY}={AUTO}: {size} ({largest.name} needs {largest.expected(size):.1f} GiB of {room} at {size})")
    return size


def memory_class(run: RunConfig) -> dict[str, Any]:
    """Return the keys on which the memory of a step depends, except `batch_size`."""
    kept = {key: value for key, value in without_neutral(flat(run)).items() if has_trait(key, MEMORY)}
    return {**kept, "decorrelation": run.decorrelation != 0}


def _short(run: RunConfig) -> RunConfig:
    """Return the run with so few steps that compile=auto does not compile."""
    return replace(run, duration="20 steps", schedule=replace(run.schedule, warmup="0 steps"))


def _distinct(runs: Sequence[RunConfig]) -> list[RunConfig]:
    for run in runs:
        if run.accumulation & (run.accumulation - 1):
            expected = f"expected accumulation to be a power of two, found accumulation={run.accumulation}"
            raise ConfigError(KEY, AUTO, f"{expected}; change it, or give a number as batch_size")
    return list({str(memory_class(run)): run for run in runs}.values())


def _tried(cell: Footprint, size: int, room: Room, limit: float) -> int:
    """Return the largest size, from the extrapolated one down, that was run on the GPU within the limit."""
    assert room.gpu is not None
    while size > cell.probe:
        expected, free = cell.expected(size), driver.free_gib(room.gpu)
        if free < expected:  # else the result would depend on other processes, and change from day to day
            raise UserError(
                f"{KEY}={AUTO}: expected {expected:.1f} GiB free on the GPU to test a batch of {size}, found "
                f"{free:.1f}; stop other processes there, or give a number"
            )
        need = cell.need(size)
        if need is not None and need <= limit:
            return size
        size //= 2
    return size


def _nothing_fits(cells: Sequence[Footprint], room: Room) -> ConfigError:
    worst = max(cells, key=lambda cell: cell.expected(cell.least))
    need = worst.expected(worst.least)
    takes = f"needs {need:.1f} GiB" if math.isfinite(need) else "runs out of memory"
    found = f"expected {room} to suffice, but {worst.name} {takes} at batch size {worst.least}"
    return ConfigError(KEY, AUTO, f"{found}; run fewer at a time, or choose a smaller model")


class _Measurement:
    """Measure runs, each in a process of its own: the peak memory of a process never decreases."""

    def __init__(self, room: Room, log: Callable[[str], object]) -> None:
        self._room, self._log = room, log
        self._processes: Processes | None = None

    def __call__(self, run: RunConfig) -> Answer:
        if self._processes is None:
            self._log(f"{KEY}={AUTO}: measuring, once for each distinct cell")
            self._processes = Processes()
        try:
            with StopRequest() as request:
                found = memory(self._processes, run, self._room.threads, self._room.gpu, request)
        except Unmeasured as error:
            if str(error) != NO_MEMORY:
                raise UserError(f"{KEY}={AUTO}: {run_names([run])[0]} cannot be measured: {error}") from None
            return Answer(None, None)
        return Answer(*found)
