"""Read runs and group them into cells: the runs that differ in seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from headsweep.errors import UserError
from headsweep.tracking.metrics_log import series
from headsweep.tracking.output_folder import RUN_RECORD
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunResult, RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.typed_files import Damaged, require

MISSING = "—"  # in the place of a value that a cell does not have
VARIANT = "variant"  # the axis of the names that a study gives to sets of overrides
_ABSENT = object()
# Keys of RunResult.clock whose median is a cost of a cell.
MEASURED_COSTS = ("images_per_second", "train_seconds", "peak_memory_gib", "peak_gpu_memory_gib")
# Likewise, of runs on stored tokens: to compute the tokens once, their size, and the backbone in each step instead.
TOKEN_COSTS = ("token_seconds", "token_bytes", "live_seconds")

T = TypeVar("T")
History = Callable[[str], Mapping[int, float]]  # metric -> epoch -> value


@dataclass(frozen=True)
class Run:
    """One run, read from its folder or from MLflow."""

    record: RunRecord
    state: RunState
    result: RunResult | None
    screened_out: str | None = None  # when, if successive halving stopped it, e.g. "3 of 20 epochs"
    data: str = ""  # equal for runs on the same training and test images
    history: History = field(default=lambda metric: {}, compare=False, repr=False)
    folder: RunFolder | None = field(default=None, compare=False, repr=False)  # None: it was read from MLflow

    @property
    def finished(self) -> bool:
        """Whether the run has finished, with a result."""
        return self.state is RunState.finished and self.result is not None


@dataclass(frozen=True)
class Cell:
    """The runs of one configuration with different seeds, in the order of the plan."""

    runs: tuple[Run, ...]
    variant: str | None = None  # the name that the study gives to its overrides

    @property
    def record(self) -> RunRecord:
        """The record of its first run, which has all that its runs share."""
        return self.runs[0].record

    @property
    def head(self) -> str:
        """Name of the head."""
        return str(self.record.config["head"]["name"])

    @property
    def heads(self) -> int:
        """Number of heads in parallel, K."""
        return int(self.record.config["heads"])

    @property
    def finished(self) -> tuple[Run, ...]:
        """Its finished runs."""
        return tuple(run for run in self.runs if run.finished)

    def by_seed(self, metric: str) -> dict[int, float]:
        """Return seed -> value of a logged metric, over the finished runs where it is finite."""
        values = {run.record.seed: run.result.metrics.get(metric) for run in self.finished if run.result is not None}
        return {seed: value for seed, value in values.items() if value is not None and math.isfinite(value)}

    def measured(self, name: str) -> list[float]:
        """Return a time, speed or memory of each finished run that measured it."""
        clocks = [run.result.clock for run in self.finished if run.result is not None]
        return [clock[name] for clock in clocks if math.isfinite(clock.get(name, math.nan))]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The planned seeds, ascending."""
        return tuple(sorted(run.record.seed for run in self.runs))

    def value(self, axis: str) -> Any:
        """Return the value of a dotted key, for a section its name; None where the cell does not have it."""
        found = self._find(axis)
        return None if found is _ABSENT else found

    def has(self, axis: str) -> bool:
        """Return whether the cell has this key, even with the value null."""
        return self._find(axis) is not _ABSENT

    def _find(self, axis: str) -> Any:
        if axis == VARIANT and self.variant is not None:
            return self.variant
        found: Any = self.record.parameters.get(axis)
        if found is None:
            found = self.record.config
            for key in axis.split("."):
                found = found.get(key, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        return found.get("name", _ABSENT) if isinstance(found, Mapping) else found


def read_cells(
    folders: Sequence[RunFolder], screening: Screening | None = None, variants: Mapping[str, str] | None = None
) -> list[Cell]:
    """Read every run once and return the cells in the order of `folders`.

    Args:
        folders: the runs.
        screening: marks what was screened out.
        variants: group of a cell -> name of its variant.

    Raises:
        Damaged: a folder holds no run, or a damaged one.
        UserError: there is no folder.
    """
    unique = {folder.path.resolve(): folder for folder in folders}.values()
    return gather([_read(folder, screening) for folder in unique], variants)


def skip_damaged(folders: Sequence[RunFolder], make: Callable[[list[RunFolder], tuple[Damaged, ...]], T]) -> T:
    """Return `make` of the folders whose files it can read, and of the damage of the others.

    Raises:
        Damaged: every folder is damaged.
    """
    damages = [damage for folder in folders if (damage := _damage(folder))]
    left = [folder for folder in folders if not any(folder.path in damage.path.parents for damage in damages)]
    while left or not damages:
        try:
            return make(left, tuple(damages))
        except Damaged as error:
            readable = [folder for folder in left if folder.path not in error.path.parents]
            if len(readable) == len(left):  # a file of the sweep itself
                raise
            left = readable
            damages.append(error)
    raise damages[0]


def _damage(folder: RunFolder) -> Damaged | None:
    try:
        _read(folder, None)
    except Damaged as error:
        return error
    return None


def gather(runs: Iterable[Run], variants: Mapping[str, str] | None = None) -> list[Cell]:
    """Return the cells of some runs, in the order of the first run of each; `variants` as for `read_cells`.

    Raises:
        UserError: there is no run.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.record.group, []).append(run)
    if not groups:
        raise UserError("no runs to compare; train some first, or name another sweep")
    return [Cell(tuple(members), (variants or {}).get(group)) for group, members in groups.items()]


def _read(folder: RunFolder, screening: Screening | None) -> Run:
    run = folder.snapshot()
    record = run.record
    try:
        _check_cell(record.config)
    except ValueError as error:
        raise Damaged(folder.path / RUN_RECORD, str(error), "remove the folder to train the run again") from error
    out = screening.screened_out(record.group) if screening and run.state is RunState.partial else None
    return Run(record, run.state, run.result, out, record.data, partial(_series, folder), folder)


def _check_cell(config: Mapping[str, Any]) -> None:
    """Raise ValueError for a configuration without a head or a number of heads."""
    head, heads = config.get("head"), config.get("heads")
    name = head.get("name") if isinstance(head, Mapping) else None
    require("config.head.name", name, isinstance(name, str), "a text")
    require("config.heads", heads, isinstance(heads, int) and heads >= 1, "an integer >= 1")


def _series(folder: RunFolder, metric: str) -> Mapping[int, float]:
    return series(folder.entries(), metric)
