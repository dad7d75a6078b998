"""An output folder that has moved, or is a copy, keeps its MLflow runs, and MLflow finds its files."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils
from mlflow.utils.file_utils import local_file_uri_to_path

from headsweep.errors import FailedRunsError
from headsweep.tracking.addresses import moved_uri
from headsweep.tracking.mlflow.reader import MlflowReader
from headsweep.tracking.mlflow.store import client, default_uri, planned_uri
from headsweep.tracking.mlflow.sync import sync
from headsweep.tracking.mlflow.tracker import MlflowTracker
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from postgres import postgres

ODD = ["a%20b c", "a%3Fb;ä", "a?b#c&d=100%"]


@pytest.fixture
def outputs(tmp_path, output, make_run, make_sweep, result):
    """An output folder, synced, of a sweep with one finished run and one that died while it was RUNNING."""
    runs = [make_run("a", epochs=3), make_run("b", epochs=1)]
    runs[0].checkpoint.write_bytes(b"weights")
    runs[0].finish(result)
    sweep = make_sweep(runs)
    (sweep.path / "table.md").write_text("| head |\n")
    sweep.register(runs)
    place = tmp_path / "first" / "outputs"
    place.mkdir(parents=True)
    for name in ("runs", "sweeps", "mlflow.db"):
        (tmp_path / name).rename(place / name)
    with RunFolder(place / "runs" / "b").lock():
        synced(place)
    return place


def synced(output, uri=None):
    """As a command of its own: within a process MLflow remembers where the files of a run lie."""
    utils._artifact_repos_cache.clear()
    lines = []
    sync(output, uri, None, lines.append)
    return lines


def active(uri):
    """Name -> MLflow run; there is one of each."""
    store = client(uri)
    runs = store.search_runs([store.get_experiment_by_name("study").experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def files(uri, run_id):
    """Name -> where MLflow finds the file, of all that it lists."""
    utils._artifact_repos_cache.clear()
    store = client(uri)
    place = Path(local_file_uri_to_path(store.get_run(run_id).info.artifact_uri))
    return {file.path: place / file.path for file in store.list_artifacts(run_id)}


def moved(outputs, to, how):
    to.parent.mkdir(exist_ok=True, parents=True)
    return Path(shutil.copytree(outputs, to)) if how == "copied" else outputs.rename(to)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_runs_and_their_files_follow_the_folder(outputs, tmp_path, how):
    before = {name: run.info.run_id for name, run in active(default_uri(outputs)).items()}
    place = moved(outputs, tmp_path / "second" / "outputs", how)
    if how == "moved":
        outputs.parent.rmdir()
        outputs.parent.write_text("a file: the old folder cannot be made again")
    else:
        was = {name: run.data.tags for name, run in active(default_uri(outputs)).items()}
    synced(place)
    after = active(default_uri(place))
    assert {name: run.info.run_id for name, run in after.items()} == before
    assert {run.info.status for run in after.values()} == {"FINISHED", "KILLED"}
    assert after["ga4-a"].data.tags["mlflow.parentRunId"] == before["pilot"]
    for name, run in after.items():
        assert run.info.artifact_uri.startswith(f"file://{place}/mlartifacts/"), name
        assert all(path.is_relative_to(place) for path in files(default_uri(place), run.info.run_id).values())
    checkpoint = files(default_uri(place), before["ga4-a"])["checkpoint.json"]
    assert json.loads(checkpoint.read_text())["path"] == str(place / "runs" / "a" / "checkpoint.pt")
    assert synced(place)[-1].endswith("0 of 3 had changes")
    if how == "copied":  # and the original stays as it was
        assert {name: run.data.tags for name, run in active(default_uri(outputs)).items()} == was
        assert all("first" in run.info.artifact_uri for run in active(default_uri(outputs)).values())


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_without_references_they_are_found_by_fingerprint_and_name(outputs, tmp_path, how):
    before = {name: run.info.run_id for name, run in active(default_uri(outputs)).items()}
    place = moved(outputs, tmp_path / "second", how)
    for path in place.glob("*/*/mlflow.json"):
        path.unlink()
    synced(place)
    assert {name: run.info.run_id for name, run in active(default_uri(place)).items()} == before


@pytest.mark.slow
def test_new_runs_of_a_moved_folder_put_their_files_there(outputs, tmp_path, make_run):
    place = moved(outputs, tmp_path / "second", "moved")
    make_run("c", epochs=1).path.rename(place / "runs" / "c")
    synced(place)
    assert active(default_uri(place))["ga4-c"].info.artifact_uri.startswith(f"file://{place}/mlartifacts/")
    assert not outputs.exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_the_next_report_has_the_same_parent(outputs, tmp_path, how):
    before = active(default_uri(outputs))["pilot"].info.run_id
    place = moved(outputs, tmp_path / "second", how)
    with MlflowTracker(None, "study", place) as tracker:
        tracker.notify(SweepFolder(place / "sweeps" / "pilot"))
    assert active(default_uri(place))["pilot"].info.run_id == before
    assert outputs.exists() == (how == "copied")


@pytest.mark.slow
def test_what_a_moved_folder_left_running_is_closed_when_any_command_starts(outputs, tmp_path):
    place = moved(outputs, tmp_path / "second", "moved")
    assert active(default_uri(place))["ga4-b"].info.status == "RUNNING"
    with MlflowTracker(None, "study", place) as tracker:
        tracker.notify(RunFolder(place / "runs" / "a"))
    assert active(default_uri(place))["ga4-b"].info.status == "KILLED"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_store_elsewhere_gets_the_new_path_of_a_moved_folder(outputs, tmp_path, how):
    shared = f"sqlite:///{shutil.copy(outputs / 'mlflow.db', tmp_path / 'shared.db')}"
    synced(outputs, shared)
    before = {name: run.info.run_id for name, run in active(shared).items()}
    place = moved(outputs, tmp_path / "second", how)
    for each in [place, outputs][: 1 + (how == "copied")]:
        synced(each, shared)
        assert {name: run.info.run_id for name, run in active(shared).items()} == before
    kept = place if how == "moved" else outputs
    assert all(str(kept) in run.info.artifact_uri for run in active(shared).values())


@pytest.mark.slow
def test_a_postgres_store_gets_the_new_path_of_a_moved_folder(outputs, tmp_path):
    with postgres() as shared:
        synced(outputs, shared)
        before = {name: run.info.run_id for name, run in active(shared).items()}
        place = moved(outputs, tmp_path / "a%b", "moved")
        synced(place, shared)
        assert {name: run.info.run_id for name, run in active(shared).items()} == before
        listed = [files(shared, run_id) for run_id in before.values()]
        assert all(listed) and all(path.is_relative_to(place) for found in listed for path in found.values())


@pytest.mark.slow
def test_a_server_has_one_run_of_a_moved_and_of_a_copied_folder(outputs, tmp_path, server):
    lines = synced(outputs, server)
    before = {name: run.info.run_id for name, run in active(server).items()}
    copy = moved(outputs, tmp_path / "copy", "copied")
    synced(copy, server)
    place = moved(outputs, tmp_path / "second", "moved")
    synced(place, server)
    assert len(lines) == 4
    assert {name: run.info.run_id for name, run in active(server).items()} == before


@pytest.mark.slow
def test_addresses_that_headsweep_did_not_make_stay(outputs, tmp_path):
    store = client(default_uri(outputs))
    store.create_experiment("theirs", artifact_location="s3://bucket/mlartifacts")
    store.create_experiment("local", artifact_location=f"file://{tmp_path}/theirs")
    place = moved(outputs, tmp_path / "second", "moved")
    synced(place)
    found = {it.name: it.artifact_location for it in client(default_uri(place)).search_experiments()}
    assert (found["theirs"], found["local"]) == ("s3://bucket/mlartifacts", f"file://{tmp_path}/theirs")


def test_a_store_that_was_named_and_lies_in_the_folder_moves_with_it(tmp_path):
    before, now = str(tmp_path / "before"), tmp_path / "now"
    config = {"paths": {"output": before}, "tracking": {"uri": f"sqlite:///{before}/mine.db"}}
    assert planned_uri(config, now) == f"sqlite:///{now}/mine.db"
    assert moved_uri(f"sqlite:///{before}-2/mine.db", before, now) == f"sqlite:///{before}-2/mine.db"
    assert moved_uri("http://host", before, now) == "http://host"


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_a_folder_may_have_any_name(name, output, tmp_path, make_run):
    place = tmp_path / "odd" / name
    place.mkdir(parents=True)
    make_run("a", epochs=1)
    for part in ("runs", "mlflow.db"):
        (output / part).rename(place / part)
    uri = default_uri(place)
    synced(place)
    (run,) = active(uri).values()
    assert files(uri, run.info.run_id)["config.yaml"].read_text() == "heads: 4\n"
    assert files(uri, run.info.run_id)["config.yaml"].is_relative_to(place / "mlartifacts")
    assert [it.run_id for it in MlflowReader(uri, "study").runs("")] == [run.info.run_id]
    assert [path.name for path in (tmp_path / "odd").iterdir()] == [name]
    to = moved(place, tmp_path / "next" / f"{name} 2", "moved")
    assert synced(to)[-1].endswith("1 of 1 had changes")
    assert files(default_uri(to), run.info.run_id)["config.yaml"].is_relative_to(to)


# Of the references of two runs and a sweep.
DAMAGED = [("", "{", "[]"), ("null", "3", '{"run_id": 3}'), ('{"uri": 1, "run_id": 2, "experiment_id": []}',) * 3]


@pytest.mark.slow
def test_a_damaged_reference_is_found_again_by_the_fingerprint(outputs):
    before = {name: run.info.run_id for name, run in active(default_uri(outputs)).items()}
    references = sorted(outputs.glob("*/*/mlflow.json"))
    for contents in DAMAGED:
        for path, content in zip(references, contents, strict=True):
            path.write_text(content)
        synced(outputs)
        assert {name: run.info.run_id for name, run in active(default_uri(outputs)).items()} == before
        assert all(json.loads(path.read_text())["run_id"] in before.values() for path in references)


def test_a_damaged_record_is_one_line_and_the_others_are_sent(outputs):
    (outputs / "runs" / "a" / "run.json").write_text("{")
    with pytest.raises(
        FailedRunsError, match=r"2 of 3 runs and sweeps failed.*\n  a: damaged: .*/a/run\.json.*\n  pilot: "
    ):
        synced(outputs)


def test_a_store_of_another_program_is_left_alone(outputs):
    (outputs / "mlflow.db").unlink()
    with sqlite3.connect(outputs / "mlflow.db") as database:
        database.execute("CREATE TABLE recipes (name)")
    content = (outputs / "mlflow.db").read_bytes()
    with pytest.raises(Exception, match=r"mlflow.db is a database of another program \(tables recipes\)"):
        synced(outputs)
    assert (outputs / "mlflow.db").read_bytes() == content
