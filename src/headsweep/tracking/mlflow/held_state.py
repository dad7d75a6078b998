"""The MLflow run of a folder and what it holds: at most one run of each fingerprint in an experiment.

A run is identified by its fingerprint, a sweep by its name. Several output folders or machines may share a store and an
experiment, so an MLflow run with the right fingerprint may still belong to another folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headsweep.credentials import redacted
from headsweep.tracking.active_launchers import find
from headsweep.tracking.mlflow.desired_state import FOLDER_TAG, KIND_TAG, DesiredState, Point
from headsweep.tracking.mlflow.reference import Reference, read_reference, write_reference
from headsweep.tracking.mlflow.store import is_inside
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SUPERSEDED_TAG = "headsweep.superseded_by"  # of an MLflow run in the trash: the run that replaced it


@dataclass
class HeldState:
    """What MLflow holds of one run."""

    run_id: str
    status: str
    points: dict[Point, float] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    sent: Counter[str] = field(default_factory=Counter)  # since it was found or created: kind -> number
    belongs_to_original: bool = False  # this folder is a copy, and its original is ahead of it: nothing is sent


def find_or_create(store: MlflowClient, desired: DesiredState, uri: str, experiment_id: str) -> HeldState:
    """Find or create the MLflow run of a folder.

    Duplicates, which contradict the folder or hold no more than it, are closed and go to MLflow's trash. A tag names
    the run that replaced them, so that they are recognised if they are restored, e.g. with the experiment. The caller
    holds the lock of the folder, or two processes could create two.
    """
    named = read_reference(desired.folder)
    kept: HeldState | None = None
    duplicates: list[HeldState] = []
    for run in _candidates(store, desired, experiment_id, named):
        held, owner = _read(store, run), _other_owner(run, uri, desired)
        is_named = named is not None and named.run_id == held.run_id
        is_subset = desired.contains(held.points) and held.status != "RUNNING"
        is_own = owner is None and (is_named or _is_own(held, uri, desired))
        if kept is None and (is_subset or ((is_own or is_named) and not desired.contradicted_by(held.points))):
            kept = held
            kept.belongs_to_original = owner is not None and _is_ahead(owner, held, desired)
        elif is_own or (is_subset and owner is None):
            duplicates.append(held)
    kept = kept or _create(store, desired, experiment_id)
    _refer(desired.folder, Reference(redacted(uri), experiment_id, kept.run_id), named)
    for held in duplicates:
        _discard(store, held, kept)
    return kept


def _candidates(store: MlflowClient, desired: DesiredState, experiment_id: str, named: Reference | None) -> list[Run]:
    """Return the active runs that match: first the one in mlflow.json, then those that this folder created."""

    def rank(run: Run) -> tuple[bool, bool, bool]:
        is_named = named is not None and named.run_id == run.info.run_id
        tags = run.data.tags
        return not is_named, SUPERSEDED_TAG in tags, tags.get(FOLDER_TAG) != desired.tags[FOLDER_TAG]

    return sorted(store.search_runs([experiment_id], desired.query, order_by=["attributes.start_time"]), key=rank)


def _other_owner(run: Run, uri: str, desired: DesiredState) -> Path | None:
    """Return another folder on this machine that has this MLflow run; `desired` may be of a copy of it."""
    folder = run.data.tags.get(FOLDER_TAG)
    if not folder or folder == desired.tags[FOLDER_TAG]:
        return None
    reference = read_reference(Path(folder))
    return Path(folder) if reference and reference.run_id == run.info.run_id and reference.is_in(uri) else None


def _is_own(held: HeldState, uri: str, desired: DesiredState) -> bool:
    """Return whether this folder created it, here or before it moved; a store in the output folder moves along."""
    is_here = held.tags.get(FOLDER_TAG) == desired.tags[FOLDER_TAG]
    return is_here or SUPERSEDED_TAG in held.tags or is_inside(uri, OutputFolder.containing(desired.folder).path)


def _is_ahead(owner: Path, held: HeldState, desired: DesiredState) -> bool:
    """Return whether the folder that has the MLflow run is training, or was trained further than this copy of it."""
    is_sweep = desired.tags[KIND_TAG] == "sweep"
    is_training = bool(find(owner)) if is_sweep else RunFolder(owner).state() is RunState.running
    return is_training or not held.points.keys() <= desired.points.keys()


def _refer(folder: Path, reference: Reference, before: Reference | None) -> None:
    """Name the MLflow run in mlflow.json; if the store moved and the run is the same, its model stays named."""
    if before and before.run_id == reference.run_id:
        reference = replace(reference, model_id=before.model_id)
    if reference != before:
        write_reference(folder, reference)


def _discard(store: MlflowClient, held: HeldState, kept: HeldState) -> None:
    store.set_tag(held.run_id, SUPERSEDED_TAG, kept.run_id)
    if held.status == "RUNNING":
        store.set_terminated(held.run_id, "KILLED")
    store.delete_run(held.run_id)
    kept.sent.update({"duplicates closed": 1})


def _read(store: MlflowClient, run: Run) -> HeldState:
    points = {
        (name, metric.step): metric.value
        for name in run.data.metrics
        for metric in store.get_metric_history(run.info.run_id, name)
    }
    files = set(_files(store, run.info.run_id))
    return HeldState(run.info.run_id, run.info.status, points, set(run.data.params), dict(run.data.tags), files)


def _files(store: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    """Return the paths of all artifacts, those in folders included."""
    for file in store.list_artifacts(run_id, folder):
        yield from _files(store, run_id, file.path) if file.is_dir else [file.path]


def _create(store: MlflowClient, desired: DesiredState, experiment_id: str) -> HeldState:
    tags = desired.initial_tags | desired.tags
    run = store.create_run(experiment_id, desired.span[0], tags, desired.name)
    return HeldState(run.info.run_id, run.info.status, tags=tags, sent=Counter({"new": 1}))
