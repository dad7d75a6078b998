"""Bring one MLflow run into agreement with one folder, of a run or of a sweep (law 6: the metrics log is the truth).

Every call compares what the folder says with what MLflow is known to hold and sends the difference, so it does not
matter where the last call, the last process or the server stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headsweep.credentials import hidden
from headsweep.tracking.mlflow.desired_state import CHECKPOINT, FOLDER_TAG, SCREENED_OUT, Wanted, of_run, of_sweep
from headsweep.tracking.mlflow.held_state import SUPERSEDED, Attachment, attach
from headsweep.tracking.mlflow.reference import read_reference
from headsweep.tracking.mlflow.store import client
from headsweep.tracking.run_folder import RunFolder, RunState
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Folder = RunFolder | SweepFolder

_BATCH_METRICS, _BATCH_PARAMS = 800, 100  # MLflow takes 1000 things at once, of them 100 parameters and 100 tags
_FILES_VERSION = "headsweep.files"  # tag: which of several versions of its files a run has


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
    if attached is None or attached.is_lent or wanted.contradicted_by(attached.points):
        attached = attach(store, wanted, uri, experiment_id)
    if attached.is_lent:
        return attached
    _send(store, wanted, attached)
    _set_status(store, wanted, attached)
    _send_files(store, wanted, attached)  # last: a server may lack a place for them
    return attached


def abandoned(uri: str, experiment_id: str, output: Path) -> Iterator[Folder]:
    """The folders on this machine whose MLflow runs say RUNNING though no process trains them.

    A run of another machine is never among them, even if its folder has the same path there: the folder here must
    name the MLflow run as its own. A folder that has moved since lies in `output`.
    """
    store, token = client(uri), None
    while token != "":
        page = store.search_runs([experiment_id], "attributes.status = 'RUNNING'", page_token=token)
        for run in page:
            folder = _folder_of(run, output)
            if folder is None:
                continue
            is_trained = folder.is_active() if isinstance(folder, SweepFolder) else folder.state() is RunState.running
            if not is_trained:
                yield folder
        token = page.token or ""


def _folder_of(run: Run, output: Path) -> Folder | None:
    """The folder that names an MLflow run as its own: where it was, or where `output` is now."""
    was = Path(run.data.tags.get("headsweep.folder", ""))
    for path in (was, output.resolve() / was.parent.name / was.name):
        reference = read_reference(path)
        if reference and reference.run_id == run.info.run_id:
            return SweepFolder(path) if run.data.tags.get("headsweep.kind") == "sweep" else RunFolder(path)
    return None


def _parent(folder: RunFolder, uri: str, experiment_id: str) -> str | None:
    """The MLflow run of the first sweep that a run belongs to."""
    sweeps = sweeps_of(folder)
    reference = read_reference(sweeps[0].path) if sweeps else None
    return reference.run_id if reference and reference.is_in(uri, experiment_id) else None


def _send(store: MlflowClient, wanted: Wanted, held: Attachment) -> None:
    """Log the points, parameters and tags that MLflow lacks, in one batch wherever they fit."""
    from mlflow.entities import Metric, Param, RunTag

    points = {point: value for point, value in wanted.points.items() if point not in held.points}
    params = {name: value for name, value in wanted.params.items() if name not in held.params}
    tags = {name: value for name, value in wanted.tags.items() if held.tags.get(name) != value}
    # The time of the metrics log, not of now: a point that two processes send is then the same row, and is kept once.
    times = wanted.milliseconds
    metrics = [Metric(point[0], v, times.get(point, wanted.span[0]), point[1]) for point, v in points.items()]
    parameters = [Param(name, value) for name, value in params.items()]
    labels = [RunTag(name, value) for name, value in tags.items()]
    while metrics or parameters or labels:
        store.log_batch(held.run_id, metrics[:_BATCH_METRICS], parameters[:_BATCH_PARAMS], labels)
        metrics, parameters, labels = metrics[_BATCH_METRICS:], parameters[_BATCH_PARAMS:], []
    for obsolete in {SCREENED_OUT, SUPERSEDED} & held.tags.keys() - wanted.tags.keys():  # trained on; restored
        store.delete_tag(held.run_id, obsolete)
        del held.tags[obsolete]
    if FOLDER_TAG in tags:  # it has moved
        held.files.discard(CHECKPOINT)
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
                store.log_text(held.run_id, hidden(content()), name)
            held.files.add(name)
            held.sent.update(files=1)
    if changed:
        store.set_tag(held.run_id, _FILES_VERSION, wanted.files_version)
        held.tags[_FILES_VERSION] = str(wanted.files_version)
