"""`batch_size=auto`: the largest power of two at which the hungriest cell of a grid fits into its device's memory.

Each distinct cell is measured at two sizes, in a process of its own, by the steps that training takes; a line through
the two says what more images would take. The room is a share of all the memory that there is, not of what is free just
now, and what was measured is remembered: the same command must plan the same runs again.
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
from headsweep.errors import ConfigError, UserError
from headsweep.launch.local import gpus as driver
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.slots import Slots
from headsweep.launch.signals import StopRequest
from headsweep.plan.fingerprint import identity
from headsweep.plan.past_costs import plain
from headsweep.plan.plan import refusal, resolve, run_names
from headsweep.tracking.measurements import Measurements

MOST = 4096  # images; accuracy suffers from larger batches before speed gains by them
SHARE = 0.9  # of the memory that a run may take: its evaluation and its libraries want some, too
LEAST, PROBE = 8, 128  # images, at which memory is measured if the run has so many

# What a step takes of memory does not depend on these.
_NO_MATTER = {
    KEY, "seed", "duration", "decorrelation", "optimizer.lr", "optimizer.weight_decay", "optimizer.betas",
    "optimizer.eps", "schedule.name", "schedule.warmup", "schedule.warmup_lr", "schedule.min_lr",
}  # fmt: skip


@dataclass(frozen=True)
class Room:
    """Where each of several runs has to fit."""

    device: str  # what it is called
    gib: float  # of memory, for one run
    gpu: str | None  # its UUID; None: the CPU
    runs: int  # that share it
    threads: int  # of each

    @staticmethod
    def of(slots: Slots) -> Room:
        """Of several GPUs the smallest; what runs share is divided."""
        if not slots.gpus:
            device = platform.processor() or platform.machine()
            return Room(device, host_memory.usable_gib() / slots.count, None, slots.count, slots.threads)
        gpu = min(slots.gpus, key=driver.total_gib)
        total = driver.total_gib(gpu)
        runs = -(-slots.count // len(slots.gpus))
        total = host_memory.usable_gib() if math.isinf(total) else total  # memory that GPU and CPU share
        return Room(driver.name(gpu), total / runs, gpu, runs, slots.threads)

    def __str__(self) -> str:
        return f"{self.gib:.1f} GiB{' a run' if self.runs > 1 else ''}"


@dataclass(frozen=True)
class Answer:
    """What a process has found."""

    gib: float | None  # None: out of memory
    images: int | None  # in the whole batches of an epoch


class Footprint:
    """What one cell takes of a device's memory, by the number of images in a batch."""

    def __init__(self, run: RunConfig, room: Room, ask: Callable[[RunConfig], Answer] | None) -> None:
        """`ask` measures; without it there is only what is remembered."""
        self.run, self._room, self._ask = run, room, ask
        self._memory = Measurements(Path(run.paths.output), "memory")
        self._key = {"cell": memory_class(run), "device": room.device, "on": "gpu" if room.gpu else "cpu"}
        known = self._memory.get(self._key) or {"needs": {}, "images": None}
        self._needs: dict[int, float | None] = {int(size): need for size, need in known["needs"].items()}
        self._images: int | None = known["images"]
        self.least = max(LEAST, 2 * run.accumulation)

    @property
    def name(self) -> str:
        """What people call the cell."""
        return f"{self.run.head.name} heads={self.run.heads} of {self.run.model.name}"

    @property
    def most(self) -> int:
        """The largest power of two that there are training images for, and no more than is tried."""
        self.need(self.least)
        images = self._images or self.least  # if not even those fit, it does not matter how many there are
        return min(MOST, 2 ** (images.bit_length() - 1))

    @property
    def probe(self) -> int:
        """The larger size at which memory is measured."""
        return max(self.least, min(PROBE, self.most))

    def need(self, size: int) -> float | None:
        """GiB, measured; None: more than there is.

        Raises:
            UserError: it was not measured yet, and nobody measures; or the run fails.
        """
        if size not in self._needs:
            if self._ask is None:
                raise ConfigError(KEY, AUTO, "not known yet; the command itself, or `headsweep plan`, measures it")
            is_probe = size <= max(PROBE, self.least)
            answer = self._ask(replace(_short(self.run) if is_probe else self.run, batch_size=size))
            self._needs[size] = answer.gib
            self._images = answer.images if self._images is None else self._images
            self._memory.put(self._key, {"needs": self._needs, "images": self._images, "name": self.name})
        return self._needs[size]

    def expected(self, size: int) -> float:
        """GiB: as measured, else on the line through the two measurements; infinite: more than there is."""
        if size in self._needs:
            need = self._needs[size]
            return math.inf if need is None else need
        low, high = self.need(self.least), self.need(self.probe)
        if low is None or high is None:
            return math.inf
        slope = (high - low) / max(1, self.probe - self.least)
        return high + max(0.0, slope) * (size - self.probe)

    def largest(self, limit: float) -> int:
        """The largest power of two at which it takes no more than `limit` GiB; 0: none."""
        size = self.most
        while size >= self.least:
            if size <= self.probe:
                self.need(size)
            if self.expected(size) <= limit:
                return size
            size //= 2
        return 0


def fitting(runs: Sequence[RunConfig], room: Room, measure: bool, say: Callable[[str], object]) -> int:
    """The batch size that fits all of `runs`; whatever batch size they have counts for nothing.

    Args:
        runs: checked, their data not looked at yet.
        room: where each of them has to fit.
        measure: what is not remembered; else it is not known.
        say: hears a line about what was found, and one before something is measured.

    Raises:
        UserError: nothing fits, the data is absent, a run cannot be trained, or it is not known.
    """
    ask = _Asking(room, say) if measure else None
    cells = [Footprint(run, room, ask) for run in _distinct(runs)]
    limit = SHARE * room.gib
    size = min(cell.largest(limit) for cell in cells)
    if not size:
        raise _nothing_fits(cells, room)
    hungriest = max(cells, key=lambda cell: cell.expected(size))
    if room.gpu:
        size = _tried(hungriest, size, room, limit)
    say(f"{KEY}={AUTO}: {size} ({hungriest.name} needs {hungriest.expected(size):.1f} GiB of {room} at {size})")
    return size


def memory_class(run: RunConfig) -> dict[str, Any]:
    """What the memory of a run's step depends on, but for the size of its batches.

    That is its identity, and the keys beside `batch_size` whether they are part of it or not.
    """
    switches = {key: value for key, value in plain(run).items() if not isinstance(value, dict) and key != "device"}
    kept = {key: value for key, value in {**identity(run), **switches}.items() if key not in _NO_MATTER}
    return {**kept, "decorrelation": run.decorrelation != 0}


def _short(run: RunConfig) -> RunConfig:
    """With the same steps, but so few that nothing is compiled for them if that pays only over many."""
    return replace(run, duration="20 steps", schedule=replace(run.schedule, warmup="0 steps"))


def _distinct(runs: Sequence[RunConfig]) -> list[RunConfig]:
    for run in runs:
        if run.accumulation & (run.accumulation - 1):
            want = f"is a power of two, which cannot be split into accumulation={run.accumulation} micro-batches"
            raise ConfigError(KEY, AUTO, f"{want}; want a power of two there, or a number here")
    resolved = resolve(runs)
    names = run_names(runs)
    if bad := [(name, str(run)) for name, run in zip(names, resolved, strict=True) if isinstance(run, UserError)]:
        raise refusal(bad, len(runs))
    return list({str(memory_class(run)): run for run in resolved if isinstance(run, RunConfig)}.values())


def _tried(cell: Footprint, size: int, room: Room, limit: float) -> int:
    """The largest size, from the expected one down, that a GPU was seen to bear: a line is no promise."""
    assert room.gpu is not None
    while size > cell.probe:
        expected, free = cell.expected(size), driver.free_gib(room.gpu)
        if free < expected:  # or it would be found too small today, and the runs would be others tomorrow
            raise UserError(
                f"{KEY}={AUTO}: a batch of {size} is to be tried and takes {expected:.1f} GiB, of which {free:.1f} are "
                "free on the GPU: want it without other processes, or a number"
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
    want = f"{worst.name} {takes} at {worst.least}, of {room}; want fewer runs at a time, or a smaller model"
    return ConfigError(KEY, AUTO, want)


class _Asking:
    """Measures runs, each in a process of its own: the most that a process has held is never less again."""

    def __init__(self, room: Room, say: Callable[[str], object]) -> None:
        self._room, self._say = room, say
        self._processes: Processes | None = None

    def __call__(self, run: RunConfig) -> Answer:
        if self._processes is None:
            self._say(f"{KEY}={AUTO}: measuring, once for each distinct cell")
            self._processes = Processes()
        run = replace(run, device="cuda") if self._room.gpu else run  # the one that the process is shown
        try:
            with StopRequest() as request:
                found = memory(self._processes, run, self._room.threads, self._room.gpu, request)
        except Unmeasured as error:
            if str(error) != NO_MEMORY:
                raise UserError(f"{KEY}={AUTO}: {run_names([run])[0]} cannot be measured: {error}") from None
            return Answer(None, None)
        return Answer(*found)
