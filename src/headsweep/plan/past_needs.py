"""What finished runs of an output folder have needed of a machine, to ask a cluster for it."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headsweep.config.traits import MEMORY
from headsweep.plan.past_costs import cost_class, recorded, steps_left
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.typed_files import Damaged

LAST_EPOCHS = 6  # of a run, by which its pace is measured


@dataclass(frozen=True)
class Kind:
    """Runs that need the same of a machine, but for their durations."""

    configuration: str  # the keys that change the memory or the seconds of a step
    on_gpu: bool
    ranks: int  # processes that train a run together

    @classmethod
    def of(cls, config: Mapping[str, Any], on_gpu: bool, ranks: int) -> Kind:
        """Return the kind of a run with a configuration, as run.json has it."""
        return cls(cost_class(config, MEMORY), on_gpu, ranks)


@dataclass(frozen=True)
class PastNeed:
    """What finished runs of one kind have needed; of each value the largest."""

    runs: int
    memory_gib: float | None  # peak of a process; None: not recorded
    seconds_per_step: float  # with its share of the evaluations; 0 for runs without steps
    steps_per_epoch: int
    seconds: float  # of training, of a whole run

    def seconds_left(self, run: RunFolder, config: Mapping[str, Any]) -> float:
        """Return the time that a run with a configuration still takes."""
        if not self.seconds_per_step:
            return self.seconds
        left = steps_left(run, str(config["duration"]), config["batch_size"], self.steps_per_epoch)
        return self.seconds_per_step * left


class PastNeeds:
    """The needs of the finished runs in an output folder, by kind."""

    def __init__(self, output: Path) -> None:
        self._runs: defaultdict[Kind, list[tuple[RunFolder, RunResult]]] = defaultdict(list)
        self._needs: dict[Kind, PastNeed] = {}
        for folder, run in recorded(output):
            if run.result:
                where = run.result.environment
                on_gpu = not str(where.get("device", "cpu")).startswith("cpu")
                self._runs[Kind.of(run.record.config, on_gpu, where.get("ranks", 1))].append((folder, run.result))

    def of(self, kind: Kind) -> PastNeed | None:
        """Return what finished runs of a kind have needed; None if there are none."""
        if kind not in self._needs and (runs := self._runs.get(kind)):
            self._needs[kind] = _need(runs)
        return self._needs.get(kind)


def _need(runs: Sequence[tuple[RunFolder, RunResult]]) -> PastNeed:
    results = [result for _, result in runs]
    steps = max((it.steps / it.epochs for it in results if it.epochs), default=0.0)
    return PastNeed(
        len(runs),
        max((it.clock["peak_memory_gib"] for it in results if "peak_memory_gib" in it.clock), default=None),
        max(_seconds_per_step(folder, result) for folder, result in runs),
        round(steps),
        max(it.clock.get("train_seconds", 0.0) for it in results),
    )


def _seconds_per_step(folder: RunFolder, result: RunResult) -> float:
    """Return the time of a step with its share of the evaluations, but for an interruption or the first compilation."""
    if not result.steps:
        return 0.0
    entries: Sequence[Entry] = ()
    with contextlib.suppress(Damaged):  # as in `recorded`
        entries = folder.metrics_log.last(LAST_EPOCHS + 1)
    timed = [(entry.step, entry.clock["time"]) for entry in entries if "time" in entry.clock]
    pairs = [(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(timed)]
    paces = [seconds / steps for steps, seconds in pairs if steps > 0 and seconds > 0]
    training = result.clock.get("train_seconds", 0.0) / result.steps
    return max(training, statistics.median(paces)) if paces else training
