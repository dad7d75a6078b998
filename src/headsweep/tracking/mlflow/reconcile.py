"""Bring one MLflow run into agreement with the folder of a run or sweep.

Every call sends the difference between the state that the folder implies and the one that MLflow holds, so it does not
matter where the last call, the last process or the server stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from headsweep.credentials import redacted
from headsweep.tracking.mlflow.desired_run import CHECKPOINT, desired_run
from headsweep.tracking.mlflow.desired_state import FOLDER_TAG, KIND_TAG, SCREENED_OUT_TAG, DesiredState
from headsweep.tracking.mlflow.desired_sweep import desired_sweep
from headsweep.tracking.mlflow.held_state import SUPERSEDED_TAG, HeldState, find_or_create
from headsweep.tracking.mlflow.reference import read_reference
from headsweep.tracking.mlflow.store import client
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of
from headsweep.tracking.tracker import Folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_METRICS_A_BATCH, _PARAMS_A_BATCH = 800, 100  # MLflow takes 1000 items at once, of them 100 parameters and 100 tags
_LOCK_SECONDS = 120.0  # another process may be sending
_FILES_VERSION_TAG = "headsweep.files"


def reconcile(folder: Folder, uri: str, experiment_id: str, held: HeldState | None = None) -> HeldState | None:
    """Bring the MLflow run of `folder` into agreement with it.

    Args:
        folder: a run or a sweep that is planned, training or over. A sweep comes before its runs: it is their parent.
        uri: the store; a folder has one MLflow run in each.
        experiment_id: what `prepare` of the store returned.
        held: what the last call returned; None reads from MLflow what it holds.

    Returns:
        What MLflow holds now; None for a run that has no metrics yet, and for the sweep of a single run.

    Raises:
        Exception: whatever MLflow raises; what was sent by then is not known, so forget `held` and call again.
    """
    if isinstance(folder, SweepFolder):
        desired = desired_sweep(folder)
    else:
        desired = desired_run(folder, _parent(folder, uri, experiment_id))
    if desired is None:
        return None
    store = client(uri)
    # Two launchers have one MLflow run, and a store may refuse a tag that both of them add at once.
    with FileLock(desired.folder / "mlflow.lock", timeout=_LOCK_SECONDS):
        if held is None or held.belongs_to_original or desired.contradicted_by(held.points):
            held = find_or_create(store, desired, uri, experiment_id)
        if held.belongs_to_original:
            return held
        _send(store, desired, held)
        _set_status(store, desired, held)
        _send_files(store, desired, held)  # last: a server may have no place for artifacts
    return held


def abandoned(uri: str, experiment_id: str, output: Path) -> Iterator[Folder]:
    """Return the folders on this machine whose MLflow runs are RUNNING though no process trains them.

    A run of another machine is never among them, even if its folder has the same path there: the folder here must
    name the MLflow run. A folder that has moved is looked for in `output`.
    """
    store, token = client(uri), None
    while token != "":
        page = store.search_runs([experiment_id], "attributes.status = 'RUNNING'", page_token=token)
        for run in page:
            folder = _folder_of(run, output)
            if folder is None:
                continue
            is_training = folder.is_active() if isinstance(folder, SweepFolder) else folder.state() is RunState.running
            if not is_training:
                yield folder
        token = page.token or ""


def _folder_of(run: Run, output: Path) -> Folder | None:
    """Return the folder that names an MLflow run: where it was, or where `output` is now."""
    before = Path(run.data.tags.get(FOLDER_TAG, ""))
    for path in (before, output.resolve() / before.parent.name / before.name):
        reference = read_reference(path)
        if reference and reference.run_id == run.info.run_id:
            return SweepFolder(path) if run.data.tags.get(KIND_TAG) == "sweep" else RunFolder(path)
    return None


def _parent(folder: RunFolder, uri: str, experiment_id: str) -> str | None:
    """Return the MLflow run of the first sweep that a run belongs to."""
    sweeps = sweeps_of(folder)
    reference = read_reference(sweeps[0].path) if sweeps else None
    return reference.run_id if reference and reference.is_in(uri, experiment_id) else None


def _send(store: MlflowClient, desired: DesiredState, held: HeldState) -> None:
    """Log the points, parameters and tags that MLflow lacks, in one batch if they fit."""
    from mlflow.entities import Metric, Param, RunTag

    points = {point: value for point, value in desired.points.items() if point not in held.points}
    params = {name: value for name, value in desired.params.items() if name not in held.params}
    tags = {name: value for name, value in desired.tags.items() if held.tags.get(name) != value}
    tags |= {name: value for name, value in desired.initial_tags.items() if name not in held.tags}
    # The time in the metrics log, not the present: a point that two processes send is then one row.
    times = desired.milliseconds
    metrics = [Metric(point[0], v, times.get(point, desired.span[0]), point[1]) for point, v in points.items()]
    parameters = [Param(name, value) for name, value in params.items()]
    labels = [RunTag(name, value) for name, value in tags.items()]
    while metrics or parameters or labels:
        store.log_batch(held.run_id, metrics[:_METRICS_A_BATCH], parameters[:_PARAMS_A_BATCH], labels)
        metrics, parameters, labels = metrics[_METRICS_A_BATCH:], parameters[_PARAMS_A_BATCH:], []
    # A run that was screened out may be trained on, and a duplicate in the trash restored.
    for obsolete in {SCREENED_OUT_TAG, SUPERSEDED_TAG} & held.tags.keys() - desired.tags.keys():
        store.delete_tag(held.run_id, obsolete)
        del held.tags[obsolete]
    if FOLDER_TAG in tags:  # it has moved
        held.files.discard(CHECKPOINT)
    held.points |= points
    held.params |= params.keys()
    held.tags |= tags
    held.sent.update(points=len(points), parameters=len(params), tags=len(tags))


def _set_status(store: MlflowClient, desired: DesiredState, held: HeldState) -> None:
    if desired.status == held.status:
        return
    if desired.status == "RUNNING":
        store.update_run(held.run_id, status=desired.status)
    else:
        store.set_terminated(held.run_id, desired.status, end_time=desired.span[1])
    held.status = desired.status
    held.sent.update(status=1)


def _send_files(store: MlflowClient, desired: DesiredState, held: HeldState) -> None:
    """Log the files that MLflow lacks; if their version changed, all of them."""
    changed = desired.files_version is not None and held.tags.get(_FILES_VERSION_TAG) != desired.files_version
    for name, content in desired.files.items():
        if changed or name not in held.files:
            if isinstance(content, Path):
                store.log_artifact(held.run_id, str(content), name.rpartition("/")[0] or None)
            else:
                store.log_text(held.run_id, redacted(content()), name)
            held.files.add(name)
            held.sent.update(files=1)
    if changed:
        store.set_tag(held.run_id, _FILES_VERSION_TAG, desired.files_version)
        held.tags[_FILES_VERSION_TAG] = str(desired.files_version)
