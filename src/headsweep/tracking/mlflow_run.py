"""Bring one MLflow run into agreement with one folder, of a run or of a sweep (law 6: the spool is the truth).

Every call compares what the folder says with what MLflow is known to hold and sends the difference, so it does not
matter where the last call, the last process or the server stopped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from headsweep.tracking import durable
from headsweep.tracking.mlflow_store import client, shown
from headsweep.tracking.mlflow_wanted import SCREENED_OUT, Point, Wanted, of_run, of_sweep
from headsweep.tracking.run_folder import RunFolder, RunState
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Folder = RunFolder | SweepFolder

_BATCH_METRICS, _BATCH_PARAMS = 800, 100  # MLflow takes 1000 things at once, of them 100 parameters and 100 tags
_ATTACH_SECONDS = 60.0
_FILES_VERSION = "headsweep.files"  # tag: which of several versions of its files a run has


@dataclass
class Attachment:
    """What MLflow is known to hold of one run."""

    run_id: str
    status: str
    points: dict[Point, float] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    sent: Counter[str] = field(default_factory=Counter)  # since it was attached: kind -> number


def project(folder: Folder, uri: str, experiment_id: str, attached: Attachment | None = None) -> Attachment | None:
    """Bring the MLflow run of `folder` into agreement with it.

    Args:
        folder: a run or a sweep that is planned, training or over. A sweep comes before its runs: it is their parent.
        uri: the store; a folder has one MLflow run in each.
        experiment_id: what `mlflow_store.prepare` returned.
        attached: what the last call returned; None asks MLflow what it holds.

    Returns:
        What MLflow holds now; None for a run that has no metrics yet, and for the sweep of a single run.

    Raises:
        Exception: whatever MLflow raises; what was sent by then is not known, so forget `attached` and call again.
    """
    if isinstance(folder, SweepFolder):
        wanted = of_sweep(folder)
    else:
        wanted = of_run(folder, _parent(folder, uri, experiment_id))
    if wanted is None:
        return None
    store = client(uri)
    if attached is None or wanted.contradicted_by(attached.points):
        attached = _attach(store, wanted, uri, experiment_id)
    _send(store, wanted, attached)
    _set_status(store, wanted, attached)
    _send_files(store, wanted, attached)  # last: a server may lack a place for them
    return attached


def abandoned(uri: str, experiment_id: str) -> Iterator[Folder]:
    """The folders on this machine whose MLflow runs say RUNNING though no process trains them.

    A run of another machine is never among them, even if its folder has the same path there: the folder here must
    name the MLflow run as its own.
    """
    store, token = client(uri), None
    while token != "":
        page = store.search_runs([experiment_id], "attributes.status = 'RUNNING'", page_token=token)
        for run in page:
            path = Path(run.data.tags.get("headsweep.folder", ""))
            if _reference(path, uri, experiment_id) != run.info.run_id:
                continue
            folder = SweepFolder(path) if run.data.tags.get("headsweep.kind") == "sweep" else RunFolder(path)
            is_trained = folder.is_active() if isinstance(folder, SweepFolder) else folder.state() is RunState.running
            if not is_trained:
                yield folder
        token = page.token or ""


def _parent(folder: RunFolder, uri: str, experiment_id: str) -> str | None:
    """The MLflow run of the first sweep that a run belongs to."""
    sweeps = sweeps_of(folder)
    return _reference(sweeps[0].path, uri, experiment_id) if sweeps else None


def _attach(store: MlflowClient, wanted: Wanted, uri: str, experiment_id: str) -> Attachment:
    """Find or create the MLflow run; one that contradicts the folder goes to MLflow's trash."""
    with FileLock(wanted.place / "mlflow.lock", timeout=_ATTACH_SECONDS):  # two launchers, one MLflow run
        for run in _candidates(store, wanted, uri, experiment_id):
            held = _ask(store, run)
            if not wanted.contradicted_by(held.points):
                break
            store.delete_run(held.run_id)
        else:
            held = _create(store, wanted, experiment_id)
        reference = {"uri": shown(uri), "experiment_id": experiment_id, "run_id": held.run_id}
        if held.run_id != _reference(wanted.place, uri, experiment_id):
            durable.write_json(wanted.place / "mlflow.json", reference)
    return held


def _reference(place: Path, uri: str, experiment_id: str) -> str | None:
    """The MLflow run that a folder names as its own, if it does for this experiment."""
    path = place / "mlflow.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    is_ours = (known.get("uri"), known.get("experiment_id")) == (shown(uri), experiment_id)
    return known["run_id"] if is_ours else None


def _candidates(store: MlflowClient, wanted: Wanted, uri: str, experiment_id: str) -> Iterator[Run]:
    """The run that mlflow.json names, then any that this same folder made; never another folder's."""
    from mlflow.exceptions import MlflowException

    run_id = _reference(wanted.place, uri, experiment_id)
    if run_id is not None:
        try:
            run = store.get_run(run_id)
            if run.info.lifecycle_stage == "active":
                yield run
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    for run in store.search_runs([experiment_id], wanted.query, order_by=["attributes.start_time"]):
        if run.data.tags.get("headsweep.folder") == wanted.tags["headsweep.folder"]:
            yield run


def _ask(store: MlflowClient, run: Run) -> Attachment:
    points = {
        (name, metric.step): metric.value
        for name in run.data.metrics
        for metric in store.get_metric_history(run.info.run_id, name)
    }
    files = set(_files(store, run.info.run_id))
    return Attachment(run.info.run_id, run.info.status, points, set(run.data.params), dict(run.data.tags), files)


def _files(store: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    """Paths of all artifacts, those in folders included."""
    for file in store.list_artifacts(run_id, folder):
        yield from _files(store, run_id, file.path) if file.is_dir else [file.path]


def _create(store: MlflowClient, wanted: Wanted, experiment_id: str) -> Attachment:
    run = store.create_run(experiment_id, wanted.span[0], wanted.tags, wanted.name)
    return Attachment(run.info.run_id, run.info.status, tags=dict(wanted.tags), sent=Counter({"new": 1}))


def _send(store: MlflowClient, wanted: Wanted, held: Attachment) -> None:
    """Log the points, parameters and tags that MLflow lacks, in one batch wherever they fit."""
    from mlflow.entities import Metric, Param, RunTag

    points = {point: value for point, value in wanted.points.items() if point not in held.points}
    params = {name: value for name, value in wanted.params.items() if name not in held.params}
    tags = {name: value for name, value in wanted.tags.items() if held.tags.get(name) != value}
    # The time of the spool, not of now: a point that two processes send is then the same row, and is kept once.
    times = wanted.milliseconds
    metrics = [Metric(point[0], v, times.get(point, wanted.span[0]), point[1]) for point, v in points.items()]
    parameters = [Param(name, value) for name, value in params.items()]
    labels = [RunTag(name, value) for name, value in tags.items()]
    while metrics or parameters or labels:
        store.log_batch(held.run_id, metrics[:_BATCH_METRICS], parameters[:_BATCH_PARAMS], labels)
        metrics, parameters, labels = metrics[_BATCH_METRICS:], parameters[_BATCH_PARAMS:], []
    if SCREENED_OUT in held.tags and SCREENED_OUT not in wanted.tags:  # it was trained on
        store.delete_tag(held.run_id, SCREENED_OUT)
        del held.tags[SCREENED_OUT]
    held.points |= points
    held.params |= params.keys()
    held.tags |= tags
    held.sent.update(points=len(points), parameters=len(params), tags=len(tags))


def _set_status(store: MlflowClient, wanted: Wanted, held: Attachment) -> None:
    if wanted.status == held.status:
        return
    if wanted.status == "RUNNING":
        store.update_run(held.run_id, status=wanted.status)
    else:
        store.set_terminated(held.run_id, wanted.status, end_time=wanted.span[1])
    held.status = wanted.status
    held.sent.update(status=1)


def _send_files(store: MlflowClient, wanted: Wanted, held: Attachment) -> None:
    """Log the files that MLflow lacks; those that may change, all of them when one has."""
    changed = wanted.files_version is not None and held.tags.get(_FILES_VERSION) != wanted.files_version
    for name, content in wanted.files.items():
        if changed or name not in held.files:
            if isinstance(content, Path):
                store.log_artifact(held.run_id, str(content), name.rpartition("/")[0] or None)
            else:
                store.log_text(held.run_id, content(), name)
            held.files.add(name)
            held.sent.update(files=1)
    if changed:
        store.set_tag(held.run_id, _FILES_VERSION, wanted.files_version)
        held.tags[_FILES_VERSION] = str(wanted.files_version)
