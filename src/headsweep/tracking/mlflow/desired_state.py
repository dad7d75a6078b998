"""The state that an MLflow run should have: what the folder of a run or sweep implies (see `desired_run`)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headsweep.tracking.run_record import RunState

Point = tuple[str, int]  # metric, epoch: MLflow may hold at most one value for it
Files = dict[str, Callable[[], str] | Path]  # name -> text, or a file of that name

# Those that are read back.
KIND_TAG = "headsweep.kind"  # run or sweep
FINGERPRINT_TAG = "headsweep.fingerprint"
GROUP_TAG = "headsweep.group"
SWEEP_TAG = "headsweep.sweep"  # its name; of a run, that of the sweep that planned it first
STATE_TAG = "headsweep.state"  # of a run, with the reason after a colon
DATA_TAG = "headsweep.data"
COMMIT_TAG = "headsweep.commit"
DIRTY_TAG = "headsweep.dirty"
CODE_TAGS = {key: f"headsweep.{key}" for key in ("version", "digest", "changes", "continued")}  # by key of the code
PACKAGES_TAG = "headsweep.packages"  # "NAME VERSION" of each
PRECISION_TAG = "headsweep.precision"
FOLDER_TAG = "headsweep.folder"  # path of the folder
COMMAND_TAG = "headsweep.command"  # the commands that planned it, a line for each
NOTE_TAG = "mlflow.note.content"  # the description on its page
SCREENED_OUT_TAG = "headsweep.screened_out"  # e.g. "3 of 20 epochs"
NON_FINITE_TAG = "headsweep.nonfinite"  # e.g. "train/loss is nan at epoch 3", of each
COST = "cost/"  # before the name of a metric that is one
MAX_TAG = 4000  # characters; MLflow refuses more than 8000

STATUS = {
    RunState.new: "KILLED",  # died before its first checkpoint
    RunState.partial: "KILLED",
    RunState.running: "RUNNING",
    RunState.finished: "FINISHED",
    RunState.diverged: "FAILED",
    RunState.failed: "FAILED",
}


@dataclass(frozen=True)
class DesiredState:
    """What MLflow should hold of a run or sweep, according to its folder at this moment."""

    folder: Path  # it has one MLflow run in each store
    query: str  # finds the MLflow runs of this folder and of its copies
    name: str
    status: str
    span: tuple[int, int]  # start and end, unix milliseconds
    tags: dict[str, str]
    params: dict[str, str]
    files: Files
    initial_tags: dict[str, str] = field(default_factory=dict)  # sent once: the user may edit them in MLflow
    files_version: str | None = None  # changes with the files; None if they never change
    points: dict[Point, float] = field(default_factory=dict)
    milliseconds: dict[Point, int] = field(default_factory=dict)  # unix time at which a point was logged
    is_over: bool = False  # no more points will come

    def contains(self, points: Mapping[Point, float]) -> bool:
        """Return whether `points` is not empty and the metrics log has all of it."""
        return bool(points) and points.keys() <= self.points.keys() and not self.contradicted_by(points)

    def contradicted_by(self, points: Mapping[Point, float]) -> bool:
        """Return whether a point in `points` is missing in the metrics log or differs there: MLflow can remove neither.

        A missing point of a run that is training is no contradiction: it was lost in a crash and will come again.
        """
        if any(not _is_equal(value, self.points.get(point, value)) for point, value in points.items()):
            return True
        names = {name for name, _ in self.points}
        return self.is_over and any(point not in self.points for point in points if point[0] in names)


def version_of(text: str) -> str:
    """Return a short digest of what files are made from."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_equal(held: float, desired: float) -> bool:
    return math.isclose(held, desired, rel_tol=1e-12)  # a store may round in its number format
