"""Bring one MLflow run into agreement with one run folder (law 6: the spool is the truth).

Every call compares what the folder says with what MLflow is known to hold and sends the difference, so it does not
matter where the last call, the last process or the server stopped.

NaN and infinity are no points: MLflow would store infinity as 1.8e308. They are named in tag `headsweep.nonfinite`.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from headsweep.tracking import durable
from headsweep.tracking.mlflow_store import client, shown
from headsweep.tracking.run_folder import RunFolder, RunRecord, RunResult, RunState
from headsweep.tracking.spool import Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Point = tuple[str, int]  # metric, epoch: where MLflow may hold one value and no more

_STATUS = {
    RunState.new: "KILLED",  # died before its first checkpoint
    RunState.partial: "KILLED",
    RunState.running: "RUNNING",
    RunState.finished: "FINISHED",
    RunState.diverged: "FAILED",
    RunState.failed: "FAILED",
}
_BATCH_METRICS, _BATCH_PARAMS = 800, 100  # MLflow takes 1000 things at once, of them 100 parameters and 100 tags
_TAG_LENGTH = 4000  # characters; MLflow refuses more than 8000
_ATTACH_SECONDS = 60.0


@dataclass
class Attachment:
    """What MLflow is known to hold of one run."""

    run_id: str
    status: str
    points: dict[Point, float] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Truth:
    """What the folder says, read in one go."""

    record: RunRecord
    state: RunState
    result: RunResult | None
    failure: str | None
    entries: list[Entry]

    @staticmethod
    def read(folder: RunFolder) -> _Truth:
        # The state first: a run that is over by then has spooled everything that is read afterwards.
        state = folder.state()
        return _Truth(folder.record(), state, folder.result(), folder.failure(), folder.spool.entries())

    def points(self) -> dict[Point, float]:
        """Every finite value, and the costs at epoch 0: MLflow sorts metrics as numbers, parameters as text."""
        costs = {(f"cost/{name}", 0): float(value) for name, value in self.record.cost.items()}
        return costs | {
            (name, entry.epoch): float(value)
            for entry in self.entries
            for name, value in entry.metrics.items()
            if math.isfinite(value)
        }

    def milliseconds(self) -> dict[Point, int]:
        """Point -> when it was spooled."""
        timed = [(entry, int(entry.clock["time"] * 1000)) for entry in self.entries if "time" in entry.clock]
        return {(name, entry.epoch): time for entry, time in timed for name in entry.metrics}

    def span(self) -> tuple[int, int]:
        """When the first and the last entry were spooled, milliseconds; now where that is not known."""
        times = self.milliseconds().values()
        now = int(time.time() * 1000)
        return min(times, default=now), max(times, default=now)

    def tags(self, folder: RunFolder) -> dict[str, str]:
        failure = (self.failure or "").strip().rpartition("\n")[2] if self.state is RunState.failed else ""
        reason = failure or (self.result.note if self.result else "")
        non_finite = "; ".join(self._non_finite())
        commit = self.record.code.get("commit") or "unknown"
        tags = {
            "headsweep.fingerprint": self.record.fingerprint,
            "headsweep.folder": str(folder.path.resolve()),
            "headsweep.group": self.record.group,
            "headsweep.sweep": self.record.sweep,
            "headsweep.seed": str(self.record.seed),
            "headsweep.commit": commit,
            "headsweep.dirty": str(bool(self.record.code.get("dirty"))).lower(),
            "headsweep.state": f"{self.state.value}: {reason}" if reason else self.state.value,
            **({"headsweep.nonfinite": non_finite} if non_finite else {}),
            "mlflow.source.name": "headsweep",
            "mlflow.source.git.commit": commit,
        }
        return {key: value[:_TAG_LENGTH] for key, value in tags.items()}

    def _non_finite(self) -> Iterator[str]:
        for entry in self.entries:
            for name, value in sorted(entry.metrics.items()):
                if not math.isfinite(value):
                    yield f"{name} is {value} at epoch {entry.epoch}"

    def contradicts(self, held: Attachment) -> bool:
        """Does MLflow hold a point that the spool does not, or has otherwise? A point cannot be taken back there.

        A run that is training may be on its way back to points which it lost with a crash.
        """
        wanted = self.points()
        if any(not _same(value, wanted.get(point, value)) for point, value in held.points.items()):
            return True
        names = {name for name, _ in wanted}
        return self.result is not None and any(p not in wanted for p in held.points if p[0] in names)


def project(folder: RunFolder, uri: str, experiment_id: str, attached: Attachment | None = None) -> Attachment | None:
    """Bring the MLflow run of `folder` into agreement with it.

    Args:
        folder: a run that is planned, training or over.
        uri: the store; a folder has one MLflow run in each.
        experiment_id: what `mlflow_store.prepare` returned.
        attached: what the last call returned; None asks MLflow what it holds.

    Returns:
        What MLflow holds now; None for a run that has not started.

    Raises:
        Exception: whatever MLflow raises; what was sent by then is not known, so forget `attached` and call again.
    """
    truth = _Truth.read(folder)
    if truth.state is RunState.new and not truth.entries and not _reference(folder).exists():
        return None
    store = client(uri)
    if attached is None or truth.contradicts(attached):
        attached = _attach(store, folder, uri, experiment_id, truth)
    _send(store, folder, truth, attached)
    _set_status(store, truth, attached)
    _send_artifacts(store, folder, truth, attached)  # last: a server may lack a place for them
    return attached


def _attach(store: MlflowClient, folder: RunFolder, uri: str, experiment_id: str, truth: _Truth) -> Attachment:
    """Find or create the MLflow run; one that contradicts the folder goes to MLflow's trash."""
    with FileLock(folder.path / "mlflow.lock", timeout=_ATTACH_SECONDS):  # two launchers, one MLflow run
        for run in _candidates(store, folder, uri, experiment_id, truth):
            held = _ask(store, run)
            if not truth.contradicts(held):
                break
            store.delete_run(held.run_id)
        else:
            held = _create(store, folder, experiment_id, truth)
        durable.write_json(_reference(folder), {"uri": shown(uri), "run_id": held.run_id})
    return held


def _candidates(store: MlflowClient, folder: RunFolder, uri: str, experiment_id: str, truth: _Truth) -> Iterator[Run]:
    """The run that mlflow.json names, then any that this same folder made; never another folder's."""
    from mlflow.exceptions import MlflowException

    path = _reference(folder)
    reference = json.loads(path.read_text()) if path.exists() else {}
    if reference.get("uri") == shown(uri):
        try:
            run = store.get_run(reference["run_id"])
            if run.info.lifecycle_stage == "active" and run.info.experiment_id == experiment_id:
                yield run
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    query = f"tags.`headsweep.fingerprint` = '{truth.record.fingerprint}'"
    for run in store.search_runs([experiment_id], query, order_by=["attributes.start_time"]):
        if run.data.tags.get("headsweep.folder") == str(folder.path.resolve()):
            yield run


def _ask(store: MlflowClient, run: Run) -> Attachment:
    points = {
        (name, metric.step): metric.value
        for name in run.data.metrics
        for metric in store.get_metric_history(run.info.run_id, name)
    }
    files = {file.path for file in store.list_artifacts(run.info.run_id)}
    return Attachment(run.info.run_id, run.info.status, points, set(run.data.params), dict(run.data.tags), files)


def _create(store: MlflowClient, folder: RunFolder, experiment_id: str, truth: _Truth) -> Attachment:
    tags = truth.tags(folder)
    run = store.create_run(experiment_id, truth.span()[0], tags, truth.record.name)
    return Attachment(run.info.run_id, run.info.status, tags=tags)


def _send(store: MlflowClient, folder: RunFolder, truth: _Truth, held: Attachment) -> None:
    """Log the points, parameters and tags that MLflow lacks, in one batch wherever they fit."""
    from mlflow.entities import Metric, Param, RunTag

    points = {point: value for point, value in truth.points().items() if point not in held.points}
    params = {name: v for name, v in truth.record.parameters.items() if name not in held.params}
    tags = {name: v for name, v in truth.tags(folder).items() if held.tags.get(name) != v}
    # The time of the spool, not of now: a point that two processes send is then the same row, and is kept once.
    start, times = truth.span()[0], truth.milliseconds()
    metrics = [Metric(point[0], v, times.get(point, start), point[1]) for point, v in points.items()]
    parameters = [Param(name, str(v)) for name, v in params.items()]
    labels = [RunTag(name, v) for name, v in tags.items()]
    while metrics or parameters or labels:
        store.log_batch(held.run_id, metrics[:_BATCH_METRICS], parameters[:_BATCH_PARAMS], labels)
        metrics, parameters, labels = metrics[_BATCH_METRICS:], parameters[_BATCH_PARAMS:], []
    held.points |= points
    held.params |= params.keys()
    held.tags |= tags


def _set_status(store: MlflowClient, truth: _Truth, held: Attachment) -> None:
    status = _STATUS[truth.state]
    if status == held.status:
        return
    if status == "RUNNING":
        store.update_run(held.run_id, status=status)
    else:
        store.set_terminated(held.run_id, status, end_time=truth.span()[1])
    held.status = status


def _send_artifacts(store: MlflowClient, folder: RunFolder, truth: _Truth, held: Attachment) -> None:
    if folder.config.name not in held.artifacts:
        store.log_artifact(held.run_id, str(folder.config))
        held.artifacts.add(folder.config.name)
    if truth.result is None:
        return
    if "environment.json" not in held.artifacts:
        _log_json(store, held, "environment.json", truth.result.environment)
    if "checkpoint.json" not in held.artifacts and folder.checkpoint.exists():
        _log_json(store, held, "checkpoint.json", _checkpoint(folder))


def _log_json(store: MlflowClient, held: Attachment, name: str, content: dict[str, Any]) -> None:
    store.log_text(held.run_id, json.dumps(content, indent=1, sort_keys=True) + "\n", name)
    held.artifacts.add(name)


def _checkpoint(folder: RunFolder) -> dict[str, Any]:
    """A reference to the checkpoint: MLflow gets no copy of the weights."""
    with folder.checkpoint.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    path = folder.checkpoint.resolve()
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _reference(folder: RunFolder) -> Path:
    return folder.path / "mlflow.json"


def _same(held: float, wanted: float) -> bool:
    return math.isclose(held, wanted, rel_tol=1e-12)  # what a store may lose on the way through its number format
