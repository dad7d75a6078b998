"""`hydra.launcher.slots=auto`: the number of concurrent runs with the highest total images per second.

The choice must not depend on which runs are still missing: threads follow from slots, and a resumed run is bitwise
equal only with the threads it started with. So the grid's first run is measured, and the result is stored.
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
from headsweep.text import plural
from headsweep.tracking.measurements import Measurements
from headsweep.tracking.run_folder import RunFolder

AUTO = "auto"
MOST_PER_GPU = 4
AS_GOOD = 0.97  # of the best: fewer concurrent runs of the same speed finish sooner, and take less memory


@dataclass(frozen=True)
class Speeds:
    """Measured images per second of all runs together, by the number of runs."""

    by_count: Mapping[int, float]
    limit: str = ""  # why the next number of runs could not be measured; "": all were measured

    @property
    def best(self) -> int:
        """Smallest number of runs within 3 % of the fastest."""
        return min(count for count, speed in self.by_count.items() if speed >= AS_GOOD * max(self.by_count.values()))

    def __str__(self) -> str:
        speeds = ", ".join(f"{count}: {speed:,.{0 if speed >= 10 else 1}f}" for count, speed in self.by_count.items())
        return f"{speeds} images/s" + (f", {max(self.by_count) + 1}: {self.limit}" if self.limit else "")


@dataclass(frozen=True)
class AutoSlots:
    """Slots chosen by a measurement."""

    first: RunConfig  # of the grid, resolved
    runs: int  # planned
    threads: int | None  # CPU threads of a run; None: the cores divided by the slots
    gpus: tuple[str, ...]  # as `Slots` has them

    @staticmethod
    def of_this_machine(
        first: RunConfig, threads: int | None, runs: int, gpus: tuple[str, ...], runs_per_gpu: int | None
    ) -> AutoSlots:
        """Return the choice for a grid. Raises ConfigError if `runs_per_gpu` is given."""
        if runs_per_gpu is not None:
            raise ConfigError(
                "hydra.launcher.slots", AUTO, "expected no runs_per_gpu, which it determines; give one of the two"
            )
        return AutoSlots(first, runs, threads, gpus)

    def expected(self) -> Slots:
        """Return the slots as far as they are known without a measurement."""
        speeds = self._remembered(self.first)
        return self._slots(speeds.best if speeds else 1)

    def decided(
        self,
        processes: Processes,
        folders: Sequence[RunFolder],
        timeout: float | None,
        log: Callable[[str], object],
    ) -> Slots:
        """Return the slots for the runs in `folders`; `log` prints a line about them.

        They are measured once for a grid, if more than one run can train at a time per GPU or on the CPU.

        Raises:
            Interrupted: a stop was requested.
        """
        run = self.first
        if speeds := self._remembered(run):
            log(self._line(speeds, "measured before: "))
        elif len(folders) > max(1, len(self.gpus)) and len(self._counts()) > 1:
            speeds = self._measured(processes, run, timeout, log)
        slots = self._slots(speeds.best if speeds else 1)
        measure_needs(folders, processes, slots, log)
        return slots

    def _measured(
        self, processes: Processes, run: RunConfig, timeout: float | None, log: Callable[[str], object]
    ) -> Speeds | None:
        counts = self._counts()
        log(f"slots: measuring {', '.join(map(str, counts))} runs{self._place}, some seconds each")
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
            log(f"slots: 1 run{self._place} (not measured: {limit})")
            return None
        speeds = Speeds(found, limit)
        Measurements(Path(run.paths.output), "speed").put(self._key(run), {"by_count": found, "limit": limit})
        log(self._line(speeds))
        return speeds

    def _counts(self) -> list[int]:
        """Return the numbers of runs (per GPU, or on the CPU) to measure: 1 to 4, powers of two, and the largest."""
        most = self._most()
        return sorted({count for count in (1, 2, 3, *(2**power for power in range(2, 12))) if count < most} | {most})

    def _most(self) -> int:
        if self.gpus:
            return min(MOST_PER_GPU, -(-self.runs // len(self.gpus)))
        return max(1, min(len(os.sched_getaffinity(0)) // (self.threads or 1), self.runs))

    def _slots(self, count: int) -> Slots:
        """Return slots for `count` runs per GPU, or on the CPU."""
        return Slots.of_this_machine(count * max(1, len(self.gpus)), self.threads, self.runs, self.gpus)

    def _remembered(self, run: RunConfig) -> Speeds | None:
        known = Measurements(Path(run.paths.output), "speed").get(self._key(run))
        if known is None:
            return None
        return Speeds({int(count): speed for count, speed in known["by_count"].items()}, known["limit"])

    def _key(self, run: RunConfig) -> dict[str, Any]:
        """Return what the speeds depend on."""
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
        turns = "; without MPS, runs on a GPU take turns" * (bool(self.gpus) and not driver.mps_is_active())
        return f"slots: {plural(speeds.best, 'run')}{self._place} ({how}{speeds}{turns})"
