"""The progress of runs and sweeps at one moment, as `read` makes it from files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from headsweep.tracking.metric_names import TOP1_BY_EPOCH
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState


@dataclass(frozen=True)
class RunView:
    """The progress of one run."""

    folder: RunFolder
    name: str
    group: str = ""
    state: RunState = RunState.damaged
    epoch: int = 0  # epochs done
    epochs: int | None = None  # epochs planned; None where it depends on the data set's size and no epoch is recorded
    metrics: Mapping[str, float] | None = None  # the last value of each
    images_per_second: float | None = None
    seconds_per_epoch: float | None = None  # with its evaluation
    note: str = ""  # one line: why it failed, diverged, was screened out, waits or cannot be read

    @property
    def top1(self) -> tuple[str, float] | None:
        """The accuracy that is evaluated each epoch, as name and last value."""
        known = self.metrics or {}
        return next(((name, known[name]) for name in TOP1_BY_EPOCH if name in known), None)


@dataclass(frozen=True)
class SweepView:
    """The progress of one sweep."""

    path: Path
    runs: Sequence[RunView]
    active: float  # Unix time of the last change of a file
    note: str = ""  # why its plan cannot be read

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.name

    @cached_property
    def counts(self) -> Mapping[RunState, int]:
        """State -> number of runs, without zeros."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in RunState if found[state]}

    @property
    def best(self) -> RunView | None:
        """The run with the highest top-1 that has not diverged."""
        scored = [run for run in self.runs if run.top1 and run.state is not RunState.diverged]
        return max(scored, key=lambda run: run.top1[1] if run.top1 else 0, default=None)

    def seconds_left(self) -> float | None:
        """Estimate the time until all runs are done; None if none runs or no epoch is recorded.

        As many runs train at a time as now, and an epoch takes as long as the run's last ones or, if it has none, as
        those of its cell or of the sweep.
        """
        running = [run for run in self.runs if run.state is RunState.running]
        waiting = [run for run in self.runs if run.state in (RunState.new, RunState.partial)]
        timed = [run for run in self.runs if run.seconds_per_epoch]
        if not running or not timed:
            return None
        everywhere = _mean_seconds(timed)
        cells: dict[str, list[RunView]] = {}
        for run in timed:
            cells.setdefault(run.group, []).append(run)
        seconds = {group: _mean_seconds(runs) for group, runs in cells.items()}
        longest = max(run.epochs or 0 for run in self.runs)
        work = [
            ((longest if run.epochs is None else run.epochs) - run.epoch)
            * (run.seconds_per_epoch or seconds.get(run.group, everywhere))
            for run in (*running, *waiting)
        ]
        return max(sum(work) / len(running), *work)


def _mean_seconds(runs: Sequence[RunView]) -> float:
    return sum(run.seconds_per_epoch or 0 for run in runs) / len(runs)
