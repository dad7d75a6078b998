"""Runs gathered into cells: the runs that differ in seed alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from headsweep.config.keys import has_trait
from headsweep.config.traits import RESULT
from headsweep.config.values import canonical
from headsweep.errors import UserError
from headsweep.tracking.metrics_log import series
from headsweep.tracking.output_folder import RUN_RECORD
from headsweep.tracking.run_folder import RunFolder, RunRecord, RunResult, RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.typed_files import Damaged, require

MISSING = "—"  # what a cell says of an axis that it does not have
_ABSENT = object()

T = TypeVar("T")
History = Callable[[str], Mapping[int, float]]  # metric -> epoch -> value


@dataclass(frozen=True)
class Run:
    """One run, as its folder or MLflow says."""

    record: RunRecord
    state: RunState
    result: RunResult | None
    screened_out: str | None = None  # when, if other cells were chosen instead, e.g. "3 of 20 epochs"
    data: str = ""  # the same for runs of the same training and test images
    history: History = field(default=lambda metric: {}, compare=False, repr=False)
    folder: RunFolder | None = field(default=None, compare=False, repr=False)  # None where only MLflow knows the run

    @property
    def finished(self) -> bool:
        """Does the run have numbers to compare?"""
        return self.state is RunState.finished and self.result is not None


@dataclass(frozen=True)
class Cell:
    """The runs of one group, in the order of the plan."""

    runs: tuple[Run, ...]

    @property
    def record(self) -> RunRecord:
        """The record of its first run: what a cell's runs share is read from it."""
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
        """The runs whose numbers count."""
        return tuple(run for run in self.runs if run.finished)

    def by_seed(self, metric: str) -> dict[int, float]:
        """Seed -> value of `metric`, over the finished runs that have it as a finite number."""
        values = {run.record.seed: run.result.metrics.get(metric) for run in self.finished if run.result is not None}
        return {seed: value for seed, value in values.items() if value is not None and math.isfinite(value)}

    def clock(self, name: str) -> float | None:
        """Median of what the finished runs measured on their machine; None where none did."""
        clocks = [run.result.clock for run in self.finished if run.result is not None]
        measured = [clock[name] for clock in clocks if name in clock]
        return statistics.median(measured) if measured else None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that were planned, ascending."""
        return tuple(sorted(run.record.seed for run in self.runs))

    def value(self, axis: str) -> Any:
        """The value of a dotted key; a section is its name; None where the cell does not have it."""
        found = self._find(axis)
        return None if found is _ABSENT else found

    def has(self, axis: str) -> bool:
        """Does the cell have this key, be its value null?"""
        return self._find(axis) is not _ABSENT

    def _find(self, axis: str) -> Any:
        found: Any = self.record.parameters.get(axis)
        if found is None:
            found = self.record.config
            for key in axis.split("."):
                found = found.get(key, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        return found.get("name", _ABSENT) if isinstance(found, Mapping) else found


def read_cells(folders: Sequence[RunFolder], screening: Screening | None = None) -> list[Cell]:
    """Read every run, once, and gather the cells in the order of `folders`; `screening` says what was screened out.

    Raises:
        Damaged: a folder holds no run, or a damaged one.
        UserError: there is no folder.
    """
    unique = {folder.path.resolve(): folder for folder in folders}.values()
    return gather([_read(folder, screening) for folder in unique])


def without_damaged(folders: Sequence[RunFolder], make: Callable[[list[RunFolder], tuple[Damaged, ...]], T]) -> T:
    """What `make` makes of the folders that can be read, whichever of their files it reads, and of what damages others.

    Raises:
        Damaged: every folder is damaged.
    """
    damages = [damage for folder in folders if (damage := _damage(folder))]
    left = [folder for folder in folders if not any(folder.path in damage.path.parents for damage in damages)]
    while left or not damages:
        try:
            return make(left, tuple(damages))
        except Damaged as error:
            others = [folder for folder in left if folder.path not in error.path.parents]
            if len(others) == len(left):  # a file of the sweep itself
                raise
            left = others
            damages.append(error)
    raise damages[0]


def _damage(folder: RunFolder) -> Damaged | None:
    try:
        _read(folder, None)
    except Damaged as error:
        return error
    return None


def gather(runs: Iterable[Run]) -> list[Cell]:
    """The cells of some runs, in the order of the first run of each.

    Raises:
        UserError: there is no run.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.record.group, []).append(run)
    if not groups:
        raise UserError("no runs to compare: the list of runs is empty; train some first, or name another sweep")
    return [Cell(tuple(members)) for members in groups.values()]


def varying_axes(cells: Sequence[Cell], given: Sequence[str] = ()) -> list[str]:
    """The keys, beside head and heads, whose values tell the cells apart: `given` first, then those that differ.

    Where the recorded parameters leave two cells looking the same, the keys of the whole configuration decide.
    """
    axes = [axis for axis in dict.fromkeys(given) if axis not in ("head", "head.name", "heads", "seed")]
    known = {group_of(axis) for axis in axes}  # `--rows model` is the axis model.name
    parameters = [key for cell in cells for key in cell.record.parameters]
    axes += [key for key in dict.fromkeys(parameters) if group_of(key) not in known and _tells_apart(key, cells)]
    for twins in _alike(cells, axes):
        keys = [key for cell in twins for key in _flat(cell.record.config)]
        axes += [key for key in dict.fromkeys(keys) if key not in axes and _tells_apart(key, twins)]
    return axes


def group_of(key: str) -> str:
    """`model` of both `model` and `model.name`, which are the same axis; any other key is itself."""
    return key.removesuffix(".name")


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
    """Raise ValueError for a configuration without what names a cell."""
    head, heads = config.get("head"), config.get("heads")
    name = head.get("name") if isinstance(head, Mapping) else None
    require("config.head.name", name, isinstance(name, str), "a text")
    require("config.heads", heads, isinstance(heads, int) and heads >= 1, "an integer of at least 1")


def _series(folder: RunFolder, metric: str) -> Mapping[int, float]:
    return series(folder.metrics_log.entries(), metric)


def _tells_apart(key: str, cells: Sequence[Cell]) -> bool:
    """Does `key` differ between cells, other than as a consequence of another head or another section?"""
    if key in ("head", "head.name", "heads", "seed"):
        return False
    section = key.rpartition(".")[0]
    alike: dict[object, set[str]] = {}
    for cell in cells:
        name = cell.value(section) if section and not key.endswith(".name") else None
        alike.setdefault(canonical(name), set()).add(canonical(cell.value(key)))
    return any(len(values) > 1 for values in alike.values())


def _alike(cells: Sequence[Cell], axes: Sequence[str]) -> Iterator[list[Cell]]:
    looks: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        look = (cell.head, str(cell.heads), *(canonical(cell.value(axis)) for axis in axes))
        looks.setdefault(look, []).append(cell)
    return (twins for twins in looks.values() if len(twins) > 1)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of what a run's numbers depend on."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif prefix + key != "seed" and has_trait(prefix + key, RESULT):
            yield prefix + key
