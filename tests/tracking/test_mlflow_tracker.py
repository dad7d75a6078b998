"""The tracker loses nothing, and never stands in the way of the training."""

from __future__ import annotations

import threading
import time

import pytest

from headsweep.tracking.active_launchers import launching
from headsweep.tracking.mlflow import tracker as mlflow_tracker
from headsweep.tracking.mlflow.store import client, prepare
from headsweep.tracking.mlflow.tracker import MlflowTracker
from headsweep.tracking.tracker import NullTracker
from programs import Program


@pytest.mark.slow
def test_sixteen_runs_at_once_lose_nothing(uri, output, make_run, make_entry, result, history):
    folders = [make_run(f"{i:x}") for i in range(16)]
    with MlflowTracker(None, "study", output) as tracker:

        def train(folder):
            for epoch in range(1, 6):
                folder.metrics_log.append(make_entry(epoch))
                tracker.notify(folder)
            folder.finish(result)
            tracker.notify(folder)

        threads = [threading.Thread(target=train, args=(folder,)) for folder in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    runs = client(uri).search_runs([prepare(uri, "study", output)])
    assert sorted(run.info.run_name for run in runs) == [f"ga4-{i:x}" for i in range(16)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        assert [row[0] for row in history(uri, run.info.run_id)["val/top1"]] == [1, 2, 3, 4, 5]


RACE = """
import sys
from pathlib import Path
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.mlflow.tracker import MlflowTracker
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
output = Path(sys.argv[1])
sweep = SweepFolder(output / "sweeps" / "pilot")
with MlflowTracker(None, "study", output) as tracker:
    sweep.register(sweep.runs())
    with launching(sweep.path):
        for folder in (sweep, *sweep.runs()):
            tracker.notify(folder)
    tracker.notify(sweep)
"""


@pytest.mark.slow
def test_two_processes_that_project_the_same_sweep_make_one_parent_and_lose_nothing(
    uri, output, make_run, make_sweep, result, contents
):
    folders = [make_run(f"{i:x}", epochs=5) for i in range(16)]
    for folder in folders:
        folder.finish(result)
    make_sweep(folders)
    processes = [Program(["-c", RACE, str(output)]) for _ in range(2)]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", ""]
    held = contents(uri, "study")
    assert len(held) == 17
    assert {content["info"][0] for content in held.values()} == {"FINISHED"}
    for i in range(16):
        run = held[f"ga4-{i:x}"]
        assert run["tags"]["mlflow.parentRunId"] == "pilot"
        assert [row[0] for row in run["metrics"]["val/top1"]] == [1, 2, 3, 4, 5]


def test_news_are_projected_while_the_runs_go_on(uri, output, make_run, wait_for):
    folder = make_run(epochs=1)
    with MlflowTracker(uri, "study", output) as tracker:
        tracker.notify(folder)
        wait_for((folder.path / "mlflow.json").exists)
        (run,) = client(uri).search_runs([prepare(uri, "study", output)])
    assert run.data.params["heads"] == "4"


def test_a_run_deleted_meanwhile_is_rebuilt_without_a_word(uri, output, make_run, make_entry, wait_for, capfd):
    folder = make_run(epochs=1)
    experiment_id = prepare(uri, "study", output)
    names = lambda: [run.info.run_id for run in client(uri).search_runs([experiment_id])]  # noqa: E731
    with MlflowTracker(uri, "study", output) as tracker:
        tracker.notify(folder)
        wait_for(lambda: bool(names()) and client(uri).get_run(names()[0]).info.status == "KILLED")
        client(uri).delete_run(names()[0])
        folder.metrics_log.append(make_entry(2))
        tracker.notify(folder)
    assert len(names()) == 1
    assert capfd.readouterr().err == ""


@pytest.fixture
def broken(tmp_path):
    """A store that cannot be: its folder is a file."""
    (tmp_path / "file").write_text("")
    return f"sqlite:///{tmp_path}/file/mlflow.db"


def test_a_broken_store_is_reported_once_and_raises_nothing(broken, tmp_path, make_run, capfd, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "_RETRY_SECONDS", 0.01)
    with MlflowTracker(broken, "study", tmp_path) as tracker:
        for name in "abc":
            tracker.notify(make_run(name, epochs=1))
            time.sleep(0.05)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "safe in the runs' metrics.jsonl" in said.err


def test_a_store_that_failed_is_left_alone_for_a_while(broken, tmp_path, make_run, monkeypatch, wait_for):
    calls = []

    def prepare_in_vain(*args):
        calls.append(args)
        raise OSError("down")

    monkeypatch.setattr(mlflow_tracker, "prepare", prepare_in_vain)
    with MlflowTracker(broken, "study", tmp_path) as tracker:
        folder = make_run(epochs=1)
        tracker.notify(folder)
        wait_for(lambda: bool(calls))
        for _ in range(20):
            tracker.notify(folder)
            time.sleep(0.005)
        assert len(calls) == 1
    assert len(calls) == 2  # and once more at the end


def test_one_broken_run_does_not_keep_the_others_from_the_store(uri, output, make_run, capfd):
    bad, good = make_run("bad", epochs=1), make_run("c", epochs=1)
    bad.metrics_log.path.write_text("not json\n")
    with MlflowTracker(uri, "study", output) as tracker:
        tracker.notify(bad)
        tracker.notify(good)
    assert (good.path / "mlflow.json").exists()
    assert capfd.readouterr().err.count("\n") == 1


def test_a_store_that_hangs_costs_no_more_than_the_time_to_wait(tmp_path, make_run, monkeypatch, capfd):
    released, answered = threading.Event(), list[bool]()
    monkeypatch.setattr(mlflow_tracker, "prepare", lambda *args: answered.append(released.wait(30)))
    tracker = MlflowTracker(None, "study", tmp_path).__enter__()
    tracker.notify(make_run(epochs=1))
    tracker.close(timeout=0.2)
    assert not answered, "neither has waited for the store"
    assert "is not done after 0.2 s" in capfd.readouterr().err
    monkeypatch.setattr(mlflow_tracker, "reconcile", lambda *args: None)
    monkeypatch.setattr(mlflow_tracker, "abandoned", lambda *args: [])
    released.set()
    tracker.close()  # or its thread would open a store that is removed, for 100 s with MLflow's lock on all stores
    assert not tracker._thread.is_alive()


def test_tracking_none_does_nothing(tmp_path, make_run):
    folder = make_run(epochs=1)
    with NullTracker() as tracker:
        tracker.notify(folder)
    assert tracker.description() == ""
    assert not (folder.path / "mlflow.json").exists()


@pytest.mark.slow
def test_a_server_that_was_down_gets_the_identical_history_by_replay(
    uri, output, refusing_port, attempts, server, make_run, make_sweep, result, contents, capfd
):
    folders = [make_run(name, epochs=3) for name in "ab"]
    sweep = make_sweep(folders)
    down = f"http://127.0.0.1:{refusing_port}"

    def give(uri, experiment):
        sweep.register(folders)
        with MlflowTracker(uri, experiment, output) as tracker, launching(sweep.path):
            for folder in (sweep, *folders):
                tracker.notify(folder)

    for folder in folders:
        folder.checkpoint.write_bytes(b"weights")
        folder.finish(result)
    give(uri, "study")
    give(down, "replay")
    assert attempts.count(("127.0.0.1", refusing_port)) in (2, 4), "one retry, once more at the end if that was earlier"
    assert capfd.readouterr().err.count("\n") == 1

    for _ in range(2):  # replayed twice: the second time adds nothing
        give(server, "replay")
        with MlflowTracker(server, "replay", output) as tracker:
            tracker.notify(sweep)
    with MlflowTracker(uri, "study", output) as tracker:
        tracker.notify(sweep)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert contents(server, "replay") == contents(uri, "study")
