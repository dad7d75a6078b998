"""When a job ran, from the file that it writes itself: outputs/sweeps/NAME/slurm/jobs/TOKEN/NUMBER_ran.json.

A cluster without accounting forgets its jobs within minutes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from headsweep.tracking import atomic_files
from headsweep.tracking.typed_files import Damaged, read_json, require

FIX = "remove it, and restarts and times of the job are unknown"


@dataclass(frozen=True)
class Period:
    """A job from one start to its end or requeue."""

    started: float  # Unix time
    ended: float | None = None  # None: it is running, or was killed


@dataclass(frozen=True)
class JobRecord:
    """The content of the file."""

    periods: list[Period] = field(default_factory=list)
    ran_out_of_time: bool = False  # and had no requeue left

    def check(self) -> None:
        """Raise ValueError for an impossible time."""
        for period in self.periods:
            require("started", period.started, period.started >= 0, "seconds since 1970")

    @property
    def restarts(self) -> int:
        """How often the job was requeued and has started again."""
        return max(0, len(self.periods) - 1)


def read(path: Path) -> JobRecord:
    """Return the record of a job; an empty one where there is none, or where it is damaged."""
    with contextlib.suppress(Damaged):
        return read_json(path, JobRecord, FIX) or JobRecord()
    return JobRecord()


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Record when the job began and ended what is done inside."""
    before = read(path)
    began = Period(time.time())
    _write(path, replace(before, periods=[*before.periods, began], ran_out_of_time=False))
    try:
        yield
    finally:
        _write(path, replace(read(path), periods=[*before.periods, replace(began, ended=time.time())]))


def mark_out_of_time(path: Path) -> None:
    """Record that the job ends because its time does, and is not requeued."""
    _write(path, replace(read(path), ran_out_of_time=True))


def _write(path: Path, record: JobRecord) -> None:
    atomic_files.write_json(path, asdict(record))
