"""What the runs in an outputs folder have cost: the best guess of what others like them will."""

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
from headsweep.plan.plan import Cost, PlannedRun
from headsweep.tracking.run_folder import RunRecord, RunResult, runs_in
from headsweep.tracking.typed_files import Damaged

# What a step costs does not depend on these.
_NO_MATTER = {"seed", "duration", "optimizer", "schedule", "tracking", "paths", "decorrelation", "clip_norm"}


class Records:
    """Costs by group, and times and memory by class: the runs whose steps cost the same."""

    def __init__(self, output: Path) -> None:
        self.costs: dict[str, Cost] = {}  # by group
        self.memory: dict[str, float] = {}  # by class, in GiB: the most that a run took
        self.gpu_memory: dict[str, float] = {}  # the same of a GPU's memory
        self._paces: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)  # (seconds a step, steps an epoch)
        for record, result in _recorded(output):
            self.costs.setdefault(record.group, record.cost)
            if result:
                self._add(cost_class(record.config), result)

    def _add(self, name: str, result: RunResult) -> None:
        seconds = result.clock.get("train_seconds")
        if seconds and result.steps and result.epochs:
            self._paces[name].append((seconds / result.steps, result.steps / result.epochs))
        for known, key in ((self.memory, "peak_memory_gib"), (self.gpu_memory, "peak_gpu_memory_gib")):
            if key in result.clock:
                known[name] = max(known.get(name, 0.0), result.clock[key])

    def seconds(self, planned: PlannedRun) -> float | None:
        """The training that is left of a run, at the median pace of those that cost as much a step."""
        paces = self._paces.get(cost_class(plain(planned.run)))
        if not paces:
            return None
        steps_per_epoch = round(statistics.median(steps for _, steps in paces))
        steps = Duration.parse("duration", planned.run.duration).steps(steps_per_epoch, planned.run.batch_size)
        done = max((entry.step for entry in planned.folder.metrics_log.entries()), default=0)
        return statistics.median(seconds for seconds, _ in paces) * max(0, steps - done)


def _recorded(output: Path) -> Iterator[tuple[RunRecord, RunResult | None]]:
    for folder in runs_in(output):
        try:
            run = folder.snapshot()
            yield run.record, run.result
        except Damaged:
            continue  # no reason not to plan


def cost_class(config: Mapping[str, Any]) -> str:
    """The same for all configurations, as a run's record has them, whose steps cost the same."""
    return json.dumps({key: value for key, value in config.items() if key not in _NO_MATTER}, sort_keys=True)


def plain(run: RunConfig) -> dict[str, Any]:
    """A configuration as a run's record has it."""
    return json.loads(json.dumps(asdict(run), default=lambda value: value.value if isinstance(value, Enum) else value))
