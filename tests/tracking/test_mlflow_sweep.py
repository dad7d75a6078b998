"""A sweep is one MLflow run, the parent of its runs, and says what has become of them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

import programs
from headsweep.tracking import atomic_files
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.mlflow.desired_sweep import desired_sweep
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import client, prepare
from headsweep.tracking.mlflow.tracker import MlflowTracker


@pytest.fixture
def runs(make_run, result):
    """Two finished runs with different learning rates and seeds."""
    folders = [make_run(name, epochs=2) for name in "ab"]
    for at, folder in enumerate(folders):
        record = replace(folder.record(), parameters={"optimizer.lr": 0.1**at}, seed=at)
        (folder.path / "run.json").unlink()
        folder.create(record, "heads: 4\n")
        folder.finish(result)
    return folders


@pytest.fixture
def launched(uri, experiment_id):
    """Project a sweep and its runs as a command does that has nothing left to train; the parent's id."""

    def launch(sweep, runs):
        sweep.register(runs)
        with launching(sweep.path):
            ids = [reconcile(folder, uri, experiment_id).run_id for folder in (sweep, *runs)]
        reconcile(sweep, uri, experiment_id)
        return ids[0]

    return launch


@pytest.mark.slow
def test_the_parent_has_axes_plan_and_table_and_the_runs_are_its_children(uri, runs, make_sweep, launched, contents):
    sweep = make_sweep(runs)
    (sweep.path / "table.md").write_text("| head |\n")
    (sweep.path / "table.csv").write_text("head\n")
    atomic_files.write_text(sweep.report, "<!DOCTYPE html>\n")
    launched(sweep, runs)
    held = contents(uri, "study")
    parent = held.pop("pilot")
    assert parent["info"][0] == "FINISHED"
    assert parent["params"] == {"optimizer.lr": "1.0, 0.1"}
    assert parent["files"] == {path.name: path.read_text() for path in sweep.files()}
    assert set(parent["files"]) == {"plan.json", "table.md", "table.csv", "report.html"}
    wanted = {
        "headsweep.kind": "sweep",
        "headsweep.sweep": "pilot",
        "headsweep.seeds": "0, 1",
        "headsweep.state": "2 finished",
        "mlflow.note.content": "| head |\n",
    }
    assert wanted.items() <= parent["tags"].items()
    assert [run["tags"]["mlflow.parentRunId"] for run in held.values()] == ["pilot", "pilot"]


def test_the_names_of_variants_take_the_place_of_the_keys_that_they_set(make_run, make_sweep):
    runs = [make_run(name) for name in "ab"]
    for folder, group, lr in zip(runs, ("slow", "fast"), (0.001, 0.01), strict=True):
        record = replace(folder.record(), group=group, parameters={"optimizer.lr": lr, "heads": 4})
        (folder.path / "run.json").unlink()
        folder.create(record, "heads: 4\n")
    sweep = make_sweep(runs)
    sweep.register(runs)
    design = {"variants": {"slow": "paper", "fast": "no warm-up"}, "variant_keys": ["optimizer.lr"]}
    plan = {"axes": ["heads", "optimizer.lr", "seed"], "runs": ["a", "b"], "design": design}
    atomic_files.write_json(sweep.path / "plan.json", plan)
    assert desired_sweep(sweep).params == {"variant": "paper, no warm-up", "heads": "4"}


@pytest.mark.slow
def test_the_second_time_the_parent_is_the_same_and_shows_the_new_table_and_seeds(
    uri, runs, make_run, make_sweep, result, launched, contents
):
    sweep = make_sweep(runs)
    (sweep.path / "table.md").write_text("old")
    first = launched(sweep, runs)
    (sweep.path / "mlflow.json").unlink()  # it is found by its tags, too
    more = [*runs, make_run("c", epochs=2)]
    more[-1].finish(result)
    sweep = make_sweep(more)
    (sweep.path / "table.md").write_text("new")
    assert launched(sweep, more) == first
    held = contents(uri, "study")
    assert held["pilot"]["files"]["table.md"] == held["pilot"]["tags"]["mlflow.note.content"] == "new"
    assert held["pilot"]["tags"]["headsweep.seeds"] == "0, 1, 3"
    assert len(held) == 4


def test_the_status_is_that_of_the_whole(uri, experiment_id, runs, make_run, make_sweep):
    runs[1] = make_run("c", epochs=1)
    runs[1].checkpoint.write_bytes(b"weights")
    sweep = make_sweep(runs)

    def status():
        return client(uri).get_run(reconcile(sweep, uri, experiment_id).run_id).info.status

    sweep.register(runs)
    with launching(sweep.path):
        assert status() == "RUNNING"
    assert status() == "KILLED"
    with runs[1].lock():  # another sweep trains it
        assert status() == "RUNNING"
    runs[1].fail("ValueError: no")
    assert status() == "FAILED"
    runs[1].forget_failure()
    runs[1].finish(replace(runs[0].result(), state="diverged"))
    assert status() == "FINISHED"


@pytest.mark.slow
def test_a_run_of_two_sweeps_stays_with_the_first(uri, runs, make_run, make_sweep, launched, contents):
    launched(make_sweep(runs, "first"), runs)
    launched(make_sweep(runs, "second"), runs)
    tags = contents(uri, "study")["ga4-a"]["tags"]
    assert (tags["mlflow.parentRunId"], tags["headsweep.sweeps"]) == ("first", "first, second")


def test_a_single_run_has_no_parent(uri, experiment_id, runs, make_sweep):
    sweep = make_sweep(runs[:1])
    sweep.register(runs[:1])
    assert reconcile(sweep, uri, experiment_id) is None
    run_id = reconcile(runs[0], uri, experiment_id).run_id
    assert "mlflow.parentRunId" not in client(uri).get_run(run_id).data.tags


@pytest.mark.slow
def test_a_parent_deleted_in_mlflow_is_rebuilt_and_its_children_follow(uri, runs, make_sweep, launched, contents):
    sweep = make_sweep(runs)
    first = launched(sweep, runs)
    before = contents(uri, "study")
    client(uri).delete_run(first)
    assert launched(sweep, runs) != first
    assert contents(uri, "study") == before


def test_a_long_table_is_cut_at_a_line(uri, experiment_id, runs, make_sweep):
    sweep = make_sweep(runs)
    line = "| a line of the table |\n"
    (sweep.path / "table.md").write_text(line * 1000)
    sweep.register(runs)
    run_id = reconcile(sweep, uri, experiment_id).run_id
    note = client(uri).get_run(run_id).data.tags["mlflow.note.content"]
    assert note.startswith(line) and note.endswith("table |\n\nThe rest is in artifact table.md.")
    assert 7000 < len(note) < 8000


KILLED = """
import os, sys
from pathlib import Path
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import default_uri, prepare
from headsweep.tracking.sweep_folder import SweepFolder
output = Path(sys.argv[1])
sweep = SweepFolder(output / "sweeps" / "pilot")
uri = default_uri(output)
sweep.register(sweep.runs())
with launching(sweep.path), sweep.runs()[1].lock():
    for folder in (sweep, *sweep.runs()):
        reconcile(folder, uri, prepare(uri, "study", output))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_what_a_killed_command_left_running_is_set_right_by_any_other(
    uri, output, runs, make_run, make_sweep, contents
):
    """But not what is still trained, and not the run of another machine whose folder has the same path."""
    runs[1] = make_run("c", epochs=1)
    make_sweep(runs)
    assert programs.run(["-c", KILLED, str(output)]).returncode == -9
    trained, theirs = make_run("trained", epochs=1), make_run("theirs", epochs=1)
    experiment_id = prepare(uri, "study", output)
    with trained.lock():
        reconcile(trained, uri, experiment_id)
        with theirs.lock():
            reconcile(theirs, uri, experiment_id)
        (theirs.path / "mlflow.json").unlink()
        statuses = lambda: {name: run["info"][0] for name, run in contents(uri, "study").items()}  # noqa: E731
        assert [statuses()[name] for name in ("pilot", "ga4-c")] == ["RUNNING", "RUNNING"]
        with MlflowTracker(uri, "study", output) as tracker:
            tracker.notify(runs[0])
        assert statuses() == {
            "pilot": "KILLED",
            "ga4-a": "FINISHED",
            "ga4-c": "KILLED",
            "ga4-trained": "RUNNING",
            "ga4-theirs": "RUNNING",
        }


def test_a_folder_that_is_gone_is_not_set_right(uri, output, make_run, runs, contents, capfd):
    left = make_run("left", epochs=1)
    with left.lock():
        reconcile(left, uri, prepare(uri, "study", output))
    shutil.rmtree(left.path)
    with MlflowTracker(uri, "study", output) as tracker:
        tracker.notify(runs[0])
    assert capfd.readouterr().err == ""
    assert contents(uri, "study")["ga4-left"]["info"][0] == "RUNNING"
