"""MLflow holds the inspections of a run's folder: files and numbers, nothing twice, nothing lost (invariant 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from headsweep.tracking.inspection import Inspection, Question, checkpoint_digest, write_inspection
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import client

NUMBERS = {"top1": 0.5, "ensemble_gain": 0.01, "kl": 0.25}
POINTS = {f"inspect/{name}": [(1, value)] for name, value in NUMBERS.items()}
ALL = ["config.yaml", "environment.json", "checkpoint.json"]


@pytest.fixture
def folder(make_run, result):
    """A run that is over."""
    run = make_run("a", epochs=2)
    run.checkpoint.write_bytes(b"weights")
    run.finish(result)
    return run


def inspect(folder, metrics=NUMBERS, earlier=(), picture=b"\x89PNG"):
    digest, question = checkpoint_digest(folder), Question("test", None, 8)
    found = Inspection(digest, question, 9, [0.5], dict(metrics), {}, {}, list(earlier))
    return write_inspection(folder.path, found, {"attention.png": lambda file: file.write(picture)})


def inspected(history, uri, run_id):
    rows = history(uri, run_id)
    return {name: [row[:2] for row in rows[name]] for name in rows if name.startswith("inspect/")}


def test_files_and_numbers_are_there(uri, experiment_id, folder, history):
    inspect(folder)
    run_id = reconcile(folder, uri, experiment_id).run_id
    assert inspected(history, uri, run_id) == POINTS
    files = {file.path for file in client(uri).list_artifacts(run_id, "inspection")}
    assert files == {"inspection/inspection.json", "inspection/attention.png"}
    assert Path(client(uri).download_artifacts(run_id, "inspection/attention.png")).read_bytes() == b"\x89PNG"


@pytest.mark.parametrize("forget", [True, False])
def test_projecting_again_sends_nothing(uri, experiment_id, folder, forget):
    inspect(folder)
    first = reconcile(folder, uri, experiment_id)
    first.sent.clear()
    again = reconcile(folder, uri, experiment_id, None if forget else first)
    assert (again.run_id, again.sent.total()) == (first.run_id, 0)


def test_an_inspection_of_a_run_that_is_there_is_added_to_it(uri, experiment_id, folder, history):
    before = reconcile(folder, uri, experiment_id)
    inspect(folder)
    after = reconcile(folder, uri, experiment_id)
    assert after.run_id == before.run_id
    assert inspected(history, uri, after.run_id) == POINTS
    assert after.files == {*ALL, "inspection/inspection.json", "inspection/attention.png"}


@pytest.mark.slow
def test_a_second_one_is_the_next_point_and_its_files_replace_the_first(uri, experiment_id, folder, history):
    inspect(folder)
    first = reconcile(folder, uri, experiment_id)
    inspect(folder, NUMBERS | {"ensemble_gain": 0.02}, earlier=[NUMBERS], picture=b"another")
    second = reconcile(folder, uri, experiment_id)
    assert second.run_id == first.run_id
    assert inspected(history, uri, first.run_id)["inspect/ensemble_gain"] == [(1, 0.01), (2, 0.02)]
    assert Path(client(uri).download_artifacts(first.run_id, "inspection/attention.png")).read_bytes() == b"another"


def test_what_was_deleted_is_rebuilt_with_all_points(uri, experiment_id, folder, history):
    inspect(folder, NUMBERS | {"ensemble_gain": 0.02}, earlier=[NUMBERS])
    first = reconcile(folder, uri, experiment_id)
    before = inspected(history, uri, first.run_id)
    client(uri).delete_run(first.run_id)
    second = reconcile(folder, uri, experiment_id)
    assert second.run_id != first.run_id and inspected(history, uri, second.run_id) == before
    assert second.files == first.files


def test_a_removed_inspection_leaves_what_mlflow_has(uri, experiment_id, folder, history):
    found = inspect(folder)
    first = reconcile(folder, uri, experiment_id)
    for path in found.files:
        path.unlink()
    assert reconcile(folder, uri, experiment_id).run_id == first.run_id
    assert inspected(history, uri, first.run_id)["inspect/kl"] == [(1, 0.25)]
