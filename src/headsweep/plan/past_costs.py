"""Costs of the runs in an output folder, to estimate those of planned runs."""

from __future__ import annotations

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
from headsweep.config.traits import PACE
from headsweep.plan.plan import PlannedRun
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_folder import runs_in
from headsweep.tracking.run_record import RunRecord, RunResult
from headsweep.tracking.typed_files import Damaged


class Records:
    """Costs by group; times and memory by cost class (runs whose steps cost the same)."""

    def __init__(self, output: Path) -> None:
        self.costs: dict[str, RunCost] = {}  # by group
        self.memory: dict[str, float] = {}  # by class, in GiB: the highest peak of a run
        self.gpu_memory: dict[str, float] = {}  # the same for GPU memory
        self._speeds: defaultdict[str, list[tuple[float, float]]] = defaultdict(
            list
        )  # (seconds per step, steps per epoch)
        for record, result in _recorded(output):
            self.costs.setdefault(record.group, record.cost)
            if result:
                self._add(cost_class(record.config), result)

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
        steps = Duration.parse("duration", planned.run.duration).steps(steps_per_epoch, planned.run.batch_size)
        done = max((entry.step for entry in planned.folder.metrics_log.entries()), default=0)
        return statistics.median(seconds for seconds, _ in speeds) * max(0, steps - done)


def _recorded(output: Path) -> Iterator[tuple[RunRecord, RunResult | None]]:
    for folder in runs_in(output):
        try:
            run = folder.snapshot()
            yield run.record, run.result
        except Damaged:
            continue  # a damaged run does not prevent planning


def cost_class(config: Mapping[str, Any]) -> str:
    """Return a key that is equal for configurations (as in run.json) whose steps cost the same."""
    kept = {key: value for key, value in without_neutral(flat_record(config)).items() if has_trait(key, PACE)}
    return json.dumps(kept, sort_keys=True)


def plain(run: RunConfig) -> dict[str, Any]:
    """Return a configuration as run.json has it."""
    return json.loads(json.dumps(asdict(run), default=lambda value: value.value if isinstance(value, Enum) else value))
