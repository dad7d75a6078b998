"""The model of a run becomes a version of a registered model, once; a run in MLflow leads to its command and back."""

from __future__ import annotations

import shlex

import mlflow
import numpy as np
import pytest
from test_mlflow_model import build

from commands import give
from headsweep.errors import UserError
from headsweep.tracking import atomic_files
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.registry import register
from headsweep.tracking.mlflow.store import client, mlflow_command, prepare
from headsweep.tracking.mlflow.sync import sync
from headsweep.tracking.tracker import NullTracker
from headsweep.tracking.trackers import tracked_as

COMMAND = "python src/train.py -m head=ga heads=4 seeds=3"


@pytest.fixture
def finish(make_run, result):
    def make(name: str):
        folder = make_run(name, epochs=3)
        folder.checkpoint.write_bytes(b"weights")
        folder.finish(result)
        return folder

    return make


@pytest.mark.slow
@pytest.mark.parametrize("store", ["file", "server"])
def test_each_run_is_registered_once_and_loads_with_signature_and_example(
    store, request, output, finish, monkeypatch, capsys
):
    address = request.getfixturevalue("uri" if store == "file" else "server")
    experiment_id, runs = prepare(address, f"registry of a {store}", output), [finish("a"), finish("b")]
    ids = [reconcile(run, address, experiment_id).run_id for run in runs]
    name = f"heads in a {store}"
    lines = [register(run, address, name, build) for run in (runs[0], runs[0], runs[1])]
    assert [line.split("\n")[0] for line in lines] == [
        f"{name} version 1: the model of ga4-a (00000000000a)",
        f"{name} version 1: the model of ga4-a (00000000000a), registered before",
        f"{name} version 2: the model of ga4-b (00000000000b)",
    ]
    assert f"load    mlflow.set_tracking_uri({address!r})\n        mlflow.pyfunc.load_model(" in lines[2]
    serve = f"{shlex.join(mlflow_command())} models serve -m 'models:/{name}/2' --env-manager local"
    assert f"serve   MLFLOW_TRACKING_URI={address} {serve}" in lines[2]
    versions = client(address).search_model_versions(f"name = '{name}'")
    assert {version.version: version.run_id for version in versions} == {"1": ids[0], "2": ids[1]} or {
        int(version.version): version.run_id for version in versions
    } == {1: ids[0], 2: ids[1]}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/1")
    assert str(loaded.metadata.signature.inputs.inputs[0].shape) == "(-1, 3, 2, 2)"
    example = loaded.input_example
    assert example.shape == (1, 3, 2, 2) and loaded.predict(np.repeat(example, 5, 0)).shape == (5, 3)


def test_a_run_without_a_model_is_refused(uri, experiment_id, make_run):
    run = make_run(epochs=1)
    reconcile(run, uri, experiment_id)
    with pytest.raises(UserError, match=r"ga4-a \(00000000000a\): expected a finished run with its checkpoint"):
        register(run, uri, "heads", build)


def test_a_store_without_the_run_is_named(uri, experiment_id, finish):
    run = finish("a")
    with pytest.raises(UserError, match=r"does not have ga4-a \(it is in none\); `headsweep sync --uri ADDRESS`"):
        register(run, uri, "heads", build)
    reconcile(run, uri, experiment_id)
    with pytest.raises(UserError, match=rf"MLflow at http://other does not have ga4-a \(it is in {uri}\)"):
        register(run, "http://other", "heads", build)


def test_a_run_without_a_tracker_has_no_registry(finish):
    with pytest.raises(UserError, match="tracker has no model registry; give --uri ADDRESS"):
        NullTracker().register(finish("a"), "heads", build)


@pytest.mark.parametrize("name", ["a/b", "models:/a", " ", "it's"])
def test_a_name_that_no_store_takes_is_one_line(name, tmp_path, capsys):
    assert give("register", "a", "--name", name, "--output", tmp_path) == 2
    error = capsys.readouterr().err
    assert "expected a name without slashes, colons and quotes" in error and error.count("\n") == 1


def planned(make_sweep, runs, command: str = COMMAND):
    sweep = make_sweep(runs)
    plan = {"axes": ["seed"], "runs": [run.path.name for run in runs], "commands": [command]}
    atomic_files.write_json(sweep.path / "plan.json", plan)
    sweep.register(runs)
    return sweep


def test_a_page_of_mlflow_has_the_command_and_what_traces_the_run(uri, experiment_id, finish, make_sweep):
    runs = [finish("a"), finish("b")]
    sweep = planned(make_sweep, runs, f"{COMMAND} tracking.uri=http://anna:secret@host")
    parent = client(uri).get_run(reconcile(sweep, uri, experiment_id).run_id)
    tags = client(uri).get_run(reconcile(runs[0], uri, experiment_id).run_id).data.tags
    shown = f"{COMMAND} tracking.uri=http://anna:***@host"
    assert tags["headsweep.command"] == parent.data.tags["headsweep.command"] == shown
    assert tags["mlflow.note.content"].startswith(f"Planned by\n\n    {shown}\n")
    assert "    headsweep explain 00000000000a\n    headsweep reproduce 00000000000a" in tags["mlflow.note.content"]
    assert tracked_as(sweep) == f"run {parent.info.run_id} of experiment {experiment_id} in {uri}"


def test_the_description_of_a_run_is_the_users_to_edit(uri, output, experiment_id, finish):
    run = finish("a")
    run_id = reconcile(run, uri, experiment_id).run_id
    client(uri).set_tag(run_id, "mlflow.note.content", "the best one")
    sync(output, None, None, lambda line: None, None)
    assert client(uri).get_run(run_id).data.tags["mlflow.note.content"] == "the best one"


def test_the_page_of_a_server_is_printed(tmp_path):
    for address in ("http://host:5000", "http://host:5000/"):
        (tmp_path / "mlflow.json").write_text(f'{{"uri": "{address}", "experiment_id": "7", "run_id": "ab"}}')
        found = tracked_as(type("Folder", (), {"path": tmp_path}))
        assert found == f"run ab of experiment 7 in {address}, http://host:5000/#/experiments/7/runs/ab"
