"""Costs of the runs in an output folder, to estimate those of planned runs."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from headsweep.config import Duration, RunConfig
from headsweep.config.keys import flat_record, has_trait, without_neutral
from headsweep.config.traits import PACE, Trait
from headsweep.plan.plan import PlannedRun
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_folder import RunFolder, runs_in
from headsweep.tracking.run_record import RunResult, RunSnapshot
from headsweep.tracking.typed_files import Damaged


class Records:
    """Costs by group; times and memory by cost class (runs whose steps cost the same)."""

    def __init__(self, output: Path) -> None:
        self.costs: dict[str, RunCost] = {}  # by group
        self.memory: dict[str, float] = {}  # by class, in GiB: the highest peak of a run
        self.gpu_memory: dict[str, float] = {}  # the same for GPU memory
        # (seconds per step, steps per epoch)
        self._speeds: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for _, run in recorded(output):
            self.costs.setdefault(run.record.group, run.record.cost)
            if run.result:
                self._add(cost_class(run.record.config), run.result)

    def _add(self, name: str, result: RunResult) -> None:
        seconds = result.clock.get("train_seconds")
        if seconds and result.steps and result.epochs:
            self._speeds[name].append((seconds / result.steps, result.steps / result.epochs))
        for known, key in ((self.memory, "peak_memory_gib"), (self.gpu_memory, "peak_gpu_memory_gib")):
            if key in result.clock:
                known[name] = max(known.get(name, 0.0), result.clock[key])

    def seconds(self, planned: PlannedRun) -> float | None:
        """Return the training time left of a run, at the median speed of its cost class; None if unknown."""
        speeds = self._speeds.get(cost_class(plain(planned.run)))
        if not speeds:
            return None
        steps_per_epoch = round(statistics.median(steps for _, steps in speeds))
        left = steps_left(planned.folder, planned.run.duration, planned.run.batch_size, steps_per_epoch)
        return statistics.median(seconds for seconds, _ in speeds) * left


def recorded(output: Path) -> Iterator[tuple[RunFolder, RunSnapshot]]:
    """Yield the runs of an output folder but for damaged ones, which `status` shows: they do not prevent planning."""
    for folder in runs_in(output):
        with contextlib.suppress(Damaged):
            yield folder, folder.snapshot()


def steps_left(folder: RunFolder, duration: str, batch_size: int, steps_per_epoch: int) -> int:
    """Return the steps of a run of some duration that its metrics log does not have yet."""
    done = max((entry.step for entry in folder.metrics_log.entries()), default=0)
    return max(0, Duration.parse("duration", duration).steps(steps_per_epoch, batch_size) - done)


def cost_class(config: Mapping[str, Any], *more: Trait) -> str:
    """Return a key that is equal for configurations (as in run.json) whose steps cost the same.

    Args:
        config: the configuration.
        more: traits of further keys that are to be equal.
    """
    values = without_neutral(flat_record(config))
    kept = {key: value for key, value in values.items() if any(has_trait(key, trait) for trait in (PACE, *more))}
    return json.dumps(kept, sort_keys=True)


def plain(run: RunConfig) -> dict[str, Any]:
    """Return a configuration as run.json has it."""
    return json.loads(json.dumps(asdict(run), default=lambda value: value.value if isinstance(value, Enum) else value))
