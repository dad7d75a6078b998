"""Which MLflow run a folder has: one and no more of each fingerprint in an experiment, wherever the folder lies now.

A run is known by its fingerprint, a sweep by its name. An MLflow run of that name may still be another folder's, which
several output folders, or machines, that share a store and an experiment have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from headsweep.credentials import hidden
from headsweep.tracking.active_launchers import find
from headsweep.tracking.mlflow.desired_state import FOLDER_TAG, Point, Wanted
from headsweep.tracking.mlflow.reference import Reference, read_reference, write_reference
from headsweep.tracking.mlflow.store import is_inside
from headsweep.tracking.run_folder import RunFolder, RunState

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_SECONDS = 60.0  # another process may be attaching
SUPERSEDED = "headsweep.superseded_by"  # tag: the MLflow run that has taken the place of one in the trash


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
    is_lent: bool = False  # the folder that this is a copy of is ahead of it: nothing is sent


def attach(store: MlflowClient, wanted: Wanted, uri: str, experiment_id: str) -> Attachment:
    """Find or create the MLflow run of a folder.

    Superfluous ones, which contradict the folder or hold no more than it, are closed and go to MLflow's trash. A tag
    names the one that has taken their place: so they are known if they come back, e.g. with a restored experiment.
    """
    with FileLock(wanted.place / "mlflow.lock", timeout=_SECONDS):  # two launchers, one MLflow run
        named = read_reference(wanted.place)
        kept: Attachment | None = None
        superfluous: list[Attachment] = []
        for run in _candidates(store, wanted, experiment_id, named):
            held, owner = _ask(store, run), _other_owner(run, uri, wanted)
            is_named = named is not None and named.run_id == held.run_id
            is_copy = wanted.contains(held.points) and held.status != "RUNNING"
            is_own = owner is None and (is_named or _is_own(held, uri, wanted))
            if kept is None and (is_copy or ((is_own or is_named) and not wanted.contradicted_by(held.points))):
                kept = held
                kept.is_lent = owner is not None and _is_ahead(owner, held, wanted)
            elif is_own or (is_copy and owner is None):
                superfluous.append(held)
        kept = kept or _create(store, wanted, experiment_id)
        _refer(wanted.place, Reference(hidden(uri), experiment_id, kept.run_id), named)
        for held in superfluous:
            _close(store, held, kept)
    return kept


def _candidates(store: MlflowClient, wanted: Wanted, experiment_id: str, named: Reference | None) -> list[Run]:
    """The active runs of that name: first the one that mlflow.json names, then those that this same folder made."""

    def rank(run: Run) -> tuple[bool, bool, bool]:
        is_named = named is not None and named.run_id == run.info.run_id
        tags = run.data.tags
        return not is_named, SUPERSEDED in tags, tags.get(FOLDER_TAG) != wanted.tags[FOLDER_TAG]

    return sorted(store.search_runs([experiment_id], wanted.query, order_by=["attributes.start_time"]), key=rank)


def _other_owner(run: Run, uri: str, wanted: Wanted) -> Path | None:
    """Another folder on this machine that has this MLflow run, in this store; this folder may be its copy."""
    place = run.data.tags.get(FOLDER_TAG)
    if not place or place == wanted.tags[FOLDER_TAG]:
        return None
    reference = read_reference(Path(place))
    return Path(place) if reference and reference.run_id == run.info.run_id and reference.is_in(uri) else None


def _is_own(held: Attachment, uri: str, wanted: Wanted) -> bool:
    """Has this folder made it, here or where it was before? A store in the output folder has moved with it."""
    is_here = held.tags.get(FOLDER_TAG) == wanted.tags[FOLDER_TAG]
    return is_here or SUPERSEDED in held.tags or is_inside(uri, wanted.place.parents[1])


def _is_ahead(owner: Path, held: Attachment, wanted: Wanted) -> bool:
    """Is the folder that has the MLflow run being trained, or trained further than this copy of it?"""
    is_sweep = wanted.tags["headsweep.kind"] == "sweep"
    is_trained = bool(find(owner)) if is_sweep else RunFolder(owner).state() is RunState.running
    return is_trained or not held.points.keys() <= wanted.points.keys()


def _refer(place: Path, reference: Reference, before: Reference | None) -> None:
    """Name the MLflow run in mlflow.json; its model stays named if the store has moved and the run is the same."""
    if before and before.run_id == reference.run_id:
        reference = replace(reference, model_id=before.model_id)
    if reference != before:
        write_reference(place, reference)


def _close(store: MlflowClient, held: Attachment, kept: Attachment) -> None:
    store.set_tag(held.run_id, SUPERSEDED, kept.run_id)
    if held.status == "RUNNING":
        store.set_terminated(held.run_id, "KILLED")
    store.delete_run(held.run_id)
    kept.sent.update({"superfluous closed": 1})


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
