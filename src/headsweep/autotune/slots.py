"""`hydra.launcher.slots=auto`: how many runs train at a time is what trains most images a second.

The choice must not depend on what is still missing: threads follow from slots, and a run that is continued has the same
bits only with the threads it began with. So it is the grid's first run that is measured, and the answer is remembered.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headsweep.autotune.measurement import Unmeasured
from headsweep.autotune.memory_needs import measure_needs
from headsweep.autotune.throughput import Throughput
from headsweep.config import RunConfig
from headsweep.errors import ConfigError
from headsweep.launch.local import gpus as driver
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.slots import Slots
from headsweep.launch.signals import StopRequest
from headsweep.plan.past_costs import cost_class, plain
from headsweep.plan.plan import resolve
from headsweep.tracking.measurements import Measurements
from headsweep.tracking.run_folder import RunFolder

AUTO = "auto"
MOST_PER_GPU = 4
AS_GOOD = 0.97  # of the best: fewer runs at a time that are as fast end sooner, and take less memory


@dataclass(frozen=True)
class Speeds:
    """What was measured: images a second, of all runs together, by their number."""

    by_count: Mapping[int, float]
    limit: str = ""  # why one run more could not be measured; "": all were

    @property
    def best(self) -> int:
        """The smallest number of runs that is about as fast as any."""
        return min(count for count, speed in self.by_count.items() if speed >= AS_GOOD * max(self.by_count.values()))

    def __str__(self) -> str:
        told = ", ".join(f"{count}: {speed:,.{0 if speed >= 10 else 1}f}" for count, speed in self.by_count.items())
        return f"{told} images/s" + (f", {max(self.by_count) + 1}: {self.limit}" if self.limit else "")


@dataclass(frozen=True)
class AutoSlots:
    """Slots that a measurement decides on."""

    first: RunConfig  # of the grid
    runs: int  # that are planned
    threads: int | None  # CPU threads of a run; None: the cores divided by the slots
    gpus: tuple[str, ...]  # as `Slots` has them

    @staticmethod
    def of_this_machine(
        first: RunConfig, threads: int | None, runs: int, gpus: tuple[str, ...], runs_per_gpu: int | None
    ) -> AutoSlots:
        """The slots of a grid. Raises ConfigError if `threads` is no number, or `runs_per_gpu` is given, too."""
        if runs_per_gpu is not None:
            raise ConfigError("hydra.launcher.slots", AUTO, "finds runs_per_gpu; give one of the two")
        Slots.of_this_machine(None, threads, runs, gpus)
        return AutoSlots(first, runs, threads, gpus)

    def expected(self) -> Slots:
        """What the machine gives to runs, as far as is known without a measurement."""
        run = resolve([self.first])[0]
        speeds = self._remembered(run) if isinstance(run, RunConfig) else None
        return self._slots(speeds.best if speeds else 1)

    def decided(
        self,
        processes: Processes,
        folders: Sequence[RunFolder],
        timeout: float | None,
        say: Callable[[str], object],
    ) -> Slots:
        """Return what the machine gives to the runs in `folders`; `say` prints a line about it.

        Measured where more than one a GPU, or one on the CPU, can be trained at a time, and once for a grid.

        Raises:
            Interrupted: someone asked to stop.
        """
        (run,) = resolve([self.first])
        assert isinstance(run, RunConfig), "the plan has looked at it"
        if speeds := self._remembered(run):
            say(self._line(speeds, "measured before: "))
        elif len(folders) > max(1, len(self.gpus)) and len(self._counts()) > 1:
            speeds = self._measured(processes, run, timeout, say)
        slots = self._slots(speeds.best if speeds else 1)
        measure_needs(folders, processes, slots, say)
        return slots

    def _measured(
        self, processes: Processes, run: RunConfig, timeout: float | None, say: Callable[[str], object]
    ) -> Speeds | None:
        counts = self._counts()
        say(f"slots: measuring {', '.join(map(str, counts))} runs{self._place}, some seconds each")
        throughput = Throughput(processes, run, self.gpus[0] if self.gpus else None, timeout)
        found, limit = dict[int, float](), ""
        with StopRequest() as request:
            for count in counts:
                try:
                    found[count] = throughput.images_per_second(count, self._slots(count).threads, request)
                except Unmeasured as error:
                    limit = str(error)
                    break
        if not found:
            say(f"slots: 1 run{self._place} (not measured: {limit})")
            return None
        speeds = Speeds(found, limit)
        Measurements(Path(run.paths.output), "speed").put(self._key(run), {"by_count": found, "limit": limit})
        say(self._line(speeds))
        return speeds

    def _counts(self) -> list[int]:
        """Runs a GPU, or on the CPU, that are measured: the first few, then fewer and fewer, and the most."""
        most = self._most()
        return sorted({count for count in (1, 2, 3, *(2**power for power in range(2, 12))) if count < most} | {most})

    def _most(self) -> int:
        if self.gpus:
            return min(MOST_PER_GPU, -(-self.runs // len(self.gpus)))
        return max(1, min(len(os.sched_getaffinity(0)) // (self.threads or 1), self.runs))

    def _slots(self, count: int) -> Slots:
        """With so many runs a GPU, or on the CPU."""
        return Slots.of_this_machine(count * max(1, len(self.gpus)), self.threads, self.runs, self.gpus)

    def _remembered(self, run: RunConfig) -> Speeds | None:
        known = Measurements(Path(run.paths.output), "speed").get(self._key(run))
        if known is None:
            return None
        return Speeds({int(count): speed for count, speed in known["by_count"].items()}, known["limit"])

    def _key(self, run: RunConfig) -> dict[str, Any]:
        """What the speeds depend on."""
        device = driver.name(self.gpus[0]) if self.gpus else platform.processor() or platform.machine()
        return {
            "run": cost_class(plain(run)),
            "device": device,
            "torch": version("torch"),
            "mps": bool(self.gpus) and driver.mps_is_active(),
            "cores": len(os.sched_getaffinity(0)),
            "gpus": len(self.gpus),
            "threads": self.threads,
            "most": self._most(),
        }

    @property
    def _place(self) -> str:
        if not self.gpus:
            return " at a time"
        sharing = " with MPS" if driver.mps_is_active() else ""
        return f" on each of {len(self.gpus)} GPUs{sharing}" if len(self.gpus) > 1 else f" per GPU{sharing}"

    def _line(self, speeds: Speeds, how: str = "") -> str:
        return f"slots: {speeds.best} run{'s' * (speeds.best != 1)}{self._place} ({how}{speeds})"
