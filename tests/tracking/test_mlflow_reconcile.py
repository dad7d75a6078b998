"""One MLflow run agrees with one run folder, whatever happened before: no gap, no duplicate."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from mlflow import MlflowClient

from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import client, default_uri, prepare
from headsweep.tracking.run_folder import RunFolder
from power import survives

COSTS = {"cost/parameters": [(0, 1000.0)], "cost/flops": [(0, 2e6)]}


def expected(epochs):
    return COSTS | {
        "train/loss": [(epoch, 1 / epoch) for epoch in range(1, epochs + 1)],
        "val/top1": [(epoch, epoch / 9700) for epoch in range(1, epochs + 1)],
    }


@pytest.fixture
def held(uri, experiment_id, history):
    """What the store holds of a run, without timestamps."""
    return lambda run_id: {name: [row[:2] for row in rows] for name, rows in history(uri, run_id).items()}


def runs_in(uri, experiment_id):
    return client(uri).search_runs([experiment_id])


def test_two_at_once_do_not_add_the_same_tags(uri, experiment_id, make_run, monkeypatch):
    """Or sqlite refuses the second: UNIQUE constraint failed."""
    folder, sending = make_run(epochs=1), Lock()
    log_batch = MlflowClient.log_batch

    def log_alone(*arguments):
        assert sending.acquire(blocking=False)
        time.sleep(0.2)
        log_batch(*arguments)
        sending.release()

    monkeypatch.setattr(MlflowClient, "log_batch", log_alone)
    with ThreadPoolExecutor(2) as pool:
        held = list(pool.map(lambda _: reconcile(folder, uri, experiment_id), range(2)))
    assert sorted(each.sent["points"] for each in held) == [0, 4]


@pytest.mark.slow
def test_a_finished_run_is_there_with_everything(uri, experiment_id, make_run, result, held, history):
    folder = make_run(epochs=3)
    folder.checkpoint.write_bytes(b"weights")
    folder.finish(result)
    run_id = reconcile(folder, uri, experiment_id).run_id
    run = client(uri).get_run(run_id)
    assert held(run_id) == expected(3)
    assert [row[2] for row in history(uri, run_id)["train/loss"]] == [1700000000000 + 1000 * e for e in (1, 2, 3)]
    assert run.data.params == {"head.name": "ga", "heads": "4", "optimizer.lr": "0.001"}
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1700000001000, 1700000003000)
    assert run.info.run_name == "ga4-a"
    reference = {
        "headsweep.fingerprint": "00000000000a",
        "headsweep.group": "g",
        "headsweep.sweep": "pilot",
        "headsweep.seed": "3",
        "headsweep.commit": "abc123",
        "headsweep.dirty": "true",
        "headsweep.state": "finished",
        "mlflow.source.name": "headsweep",
    }
    assert reference.items() <= run.data.tags.items()


def test_a_run_that_ends_while_it_is_read_keeps_its_last_points(uri, experiment_id, make_run, make_entry, result, held):
    class Ending(RunFolder):
        def _is_locked(self):  # which is looked at after the result was found missing
            self.metrics_log.append(make_entry(3))
            self.finish(result)
            return super()._is_locked()

    folder = Ending(make_run(epochs=2).path)
    state = reconcile(folder, uri, experiment_id)
    assert (state.status, held(state.run_id)) == ("FINISHED", expected(3))


def test_artifacts_refer_to_the_checkpoint_and_lie_in_the_output(uri, experiment_id, output, make_run, result):
    folder = make_run(epochs=1)
    folder.checkpoint.write_bytes(b"weights")
    folder.finish(result)
    run = client(uri).get_run(reconcile(folder, uri, experiment_id).run_id)
    place = Path(run.info.artifact_uri.removeprefix("file://"))
    assert place.is_relative_to(output / "mlartifacts")
    assert sorted(file.name for file in place.iterdir()) == ["checkpoint.json", "config.yaml", "environment.json"]
    assert (place / "config.yaml").read_text() == "heads: 4\n"
    assert json.loads((place / "environment.json").read_text()) == {"device": "cpu"}
    assert json.loads((place / "checkpoint.json").read_text()) == {
        "path": str(folder.checkpoint),
        "bytes": 7,
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }


def test_which_test_images_are_right_is_an_artifact(uri, experiment_id, make_run, result):
    folder = make_run(epochs=1)
    folder.write_test_correct(np.array([True, False, True]))
    folder.finish(result)
    run_id = reconcile(folder, uri, experiment_id).run_id
    assert np.load(client(uri).download_artifacts(run_id, "test_correct.npy")).tolist() == [True, False, True]


@pytest.mark.parametrize("forget", [True, False])
def test_projecting_again_adds_nothing(uri, experiment_id, make_run, held, forget):
    folder = make_run(epochs=3, clock=False)
    state = reconcile(folder, uri, experiment_id)
    again = reconcile(folder, uri, experiment_id, None if forget else state)
    assert again.run_id == state.run_id
    assert held(state.run_id) == expected(3)


def test_new_epochs_are_sent_in_one_batch(uri, experiment_id, make_run, make_entry, held, monkeypatch):
    folder = make_run(epochs=2)
    state = reconcile(folder, uri, experiment_id)
    kind, sizes = type(client(uri)), []
    real = kind.log_batch
    monkeypatch.setattr(
        kind, "log_batch", lambda self, run_id, *rest: sizes.append(len(rest[0])) or real(self, run_id, *rest)
    )
    folder.metrics_log.append(make_entry(3))
    folder.metrics_log.append(make_entry(4))
    reconcile(folder, uri, experiment_id, state)
    assert sizes == [4]
    assert held(state.run_id) == expected(4)


def test_mlflow_receives_only_what_a_power_cut_leaves(uri, experiment_id, make_run, make_entry, held, monkeypatch):
    """Invariant 6, whichever process has written the metrics: the training process does not wait for the disk."""
    folder = make_run(epochs=1)
    kind, heard = type(client(uri)), []
    is_on_disk, real = survives(folder.metrics_log.path, monkeypatch), kind.log_batch
    monkeypatch.setattr(kind, "log_batch", lambda self, *rest: heard.append(is_on_disk()) or real(self, *rest))
    folder.metrics_log.append(make_entry(2))
    assert not is_on_disk(), "or this test sees nothing"
    run_id = reconcile(folder, uri, experiment_id).run_id
    assert set(heard) == {True} and held(run_id) == expected(2)


@pytest.mark.slow
def test_a_long_run_with_many_parameters_goes_in_batches_that_mlflow_takes(
    uri, experiment_id, make_run, held, monkeypatch
):
    folder = make_run("b")
    record = replace(folder.record(), parameters={f"key.{i}": i for i in range(250)})
    (folder.path / "run.json").unlink()
    folder.create(record, "")
    for epoch in range(1, 602):
        folder.metrics_log.append(Entry(epoch, epoch, {"train/loss": 1 / epoch, "val/top1": epoch / 9700}))
    kind, sizes = type(client(uri)), []
    real = kind.log_batch
    monkeypatch.setattr(
        kind, "log_batch", lambda self, run_id, *rest: sizes.append(list(map(len, rest))) or real(self, run_id, *rest)
    )
    run_id = reconcile(folder, uri, experiment_id).run_id
    assert held(run_id) == expected(601)
    assert len(client(uri).get_run(run_id).data.params) == 250
    assert all(sum(size) <= 1000 and size[1] <= 100 for size in sizes)
    assert len(sizes) == 3


@pytest.mark.parametrize("call", ["create_run", "log_batch", "set_terminated", "log_text"])
def test_a_crash_after_any_call_leaves_no_gap_and_no_duplicate(
    uri, experiment_id, make_run, result, held, monkeypatch, call
):
    folder = make_run(epochs=3, clock=False)  # without times every call has its own: the store cannot merge rows
    folder.finish(result)
    kind = type(client(uri))
    real = getattr(kind, call)

    def crash(self, *args, **options):
        real(self, *args, **options)
        raise ConnectionError("torn off")

    monkeypatch.setattr(kind, call, crash)
    with pytest.raises(ConnectionError):
        reconcile(folder, uri, experiment_id)
    monkeypatch.undo()
    run_id = reconcile(folder, uri, experiment_id).run_id
    assert [run.info.run_id for run in runs_in(uri, experiment_id)] == [run_id]
    assert held(run_id) == expected(3)
    assert client(uri).get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize("same_process", [True, False])
def test_a_resumed_run_goes_on_in_the_same_mlflow_run(
    uri, experiment_id, make_run, make_entry, result, held, same_process
):
    folder = make_run(epochs=4)
    with folder.lock():
        first = reconcile(folder, uri, experiment_id)
    folder.metrics_log.rewind(make_entry(2).step)
    with folder.lock():
        first = reconcile(folder, uri, experiment_id, first if same_process else None)
        for epoch in (3, 4, 5):  # trained again, an hour later
            folder.metrics_log.append(make_entry(epoch, late=3600))
    folder.finish(result)
    last = reconcile(folder, uri, experiment_id, first if same_process else None)
    assert last.run_id == first.run_id
    assert held(last.run_id) == expected(5)


@pytest.mark.parametrize("same_process", [True, False])
def test_what_a_run_has_cost_is_a_metric_once_it_is_over(uri, experiment_id, make_run, result, held, same_process):
    folder = make_run(epochs=3)
    first = reconcile(folder, uri, experiment_id)
    clock = {"train_seconds": 12.5, "images_per_second": 800.0, "token_bytes": 18e9}  # of all images, not of one
    folder.finish(replace(result, clock=clock))
    last = reconcile(folder, uri, experiment_id, first if same_process else None)
    again = reconcile(folder, uri, experiment_id, last if same_process else None)
    assert {first.run_id} == {last.run_id, again.run_id}
    assert held(last.run_id) == expected(3) | {f"cost/{name}": [(0, value)] for name, value in clock.items()}


@pytest.mark.parametrize("same_process", [True, False])
def test_a_run_whose_numbers_changed_is_rebuilt_from_the_metrics_log(
    uri, experiment_id, make_run, make_entry, held, same_process
):
    folder = make_run(epochs=3)
    first = reconcile(folder, uri, experiment_id)
    folder.metrics_log.rewind(make_entry(1).step)
    changed = replace(make_entry(2), metrics={"train/loss": 7.0, "val/top1": 0.5})
    folder.metrics_log.append(changed)
    last = reconcile(folder, uri, experiment_id, first if same_process else None)
    assert last.run_id != first.run_id
    assert [run.info.run_id for run in runs_in(uri, experiment_id)] == [last.run_id]
    assert held(last.run_id)["train/loss"] == [(1, 1.0), (2, 7.0)]


def test_points_that_a_finished_run_does_not_have_do_not_stay(uri, experiment_id, make_run, make_entry, result, held):
    folder = make_run(epochs=3)
    reconcile(folder, uri, experiment_id)
    folder.metrics_log.rewind(make_entry(2).step)
    folder.finish(result)
    assert held(reconcile(folder, uri, experiment_id).run_id) == expected(2)


def test_a_run_deleted_in_mlflow_is_rebuilt(uri, experiment_id, make_run, held):
    folder = make_run(epochs=3)
    first = reconcile(folder, uri, experiment_id).run_id
    client(uri).delete_run(first)
    second = reconcile(folder, uri, experiment_id).run_id
    assert second != first
    assert held(second) == expected(3)


def test_a_lost_reference_is_found_by_the_fingerprint(uri, experiment_id, make_run, held):
    folder = make_run(epochs=3, clock=False)
    first = reconcile(folder, uri, experiment_id).run_id
    (folder.path / "mlflow.json").unlink()
    assert reconcile(folder, uri, experiment_id).run_id == first
    assert held(first) == expected(3)


@pytest.fixture
def elsewhere(tmp_path):
    """Another output folder, in which the store does not lie."""
    return lambda folder: shutil.copytree(folder.path, tmp_path / "elsewhere" / "runs" / folder.path.name)


def test_a_run_of_another_folder_with_other_numbers_is_left_alone(
    uri, experiment_id, make_run, make_entry, elsewhere, held
):
    folder = make_run(epochs=3)
    other = RunFolder(elsewhere(folder))
    other.metrics_log.rewind(make_entry(2).step)
    other.metrics_log.append(replace(make_entry(3), metrics={"train/loss": 7.0, "val/top1": 0.5}))
    theirs = reconcile(folder, uri, experiment_id).run_id
    ours = reconcile(other, uri, experiment_id).run_id
    assert [reconcile(each, uri, experiment_id).run_id for each in (folder, other)] == [theirs, ours]
    assert len(runs_in(uri, experiment_id)) == 2
    assert held(theirs) == expected(3)


@pytest.mark.slow
def test_a_copy_shares_the_mlflow_run_and_takes_nothing_back(
    uri, experiment_id, make_run, make_entry, elsewhere, held, result
):
    folder = make_run(epochs=1)
    copy = RunFolder(elsewhere(folder))
    with folder.lock():  # trained on, while its copy is not
        folder.metrics_log.append(make_entry(2))
        first = reconcile(folder, uri, experiment_id)
        shutil.copy(folder.path / "mlflow.json", copy.path)
        assert reconcile(copy, uri, experiment_id).belongs_to_original
        assert client(uri).get_run(first.run_id).info.status == "RUNNING"
        folder.metrics_log.append(make_entry(3))
    folder.finish(result)
    reconcile(folder, uri, experiment_id, first)
    assert reconcile(copy, uri, experiment_id).belongs_to_original
    (run,) = runs_in(uri, experiment_id)
    assert (run.info.run_id, run.info.status, held(run.info.run_id)) == (first.run_id, "FINISHED", expected(3))
    for epoch in (2, 3, 4):  # the copy gets ahead
        copy.metrics_log.append(make_entry(epoch))
    assert reconcile(copy, uri, experiment_id).run_id == first.run_id
    assert held(first.run_id) == expected(4)


def test_another_store_gets_its_own_run_and_the_first_is_found_again(uri, experiment_id, make_run, tmp_path, held):
    folder = make_run(epochs=2, clock=False)
    first = reconcile(folder, uri, experiment_id).run_id
    other = default_uri(tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mlflow.db").write_bytes((tmp_path / "mlflow.db").read_bytes())
    second = reconcile(folder, other, prepare(other, "study 2", tmp_path / "other")).run_id
    assert second != first
    assert reconcile(folder, uri, experiment_id).run_id == first
    assert held(first) == expected(2)


def test_a_reference_into_another_store_is_not_asked_for_in_this_one(uri, experiment_id, make_run, held):
    folder = make_run(epochs=2)
    (folder.path / "mlflow.json").write_text('{"uri": "http://elsewhere", "run_id": "spelled/another way"}')
    assert held(reconcile(folder, uri, experiment_id).run_id) == expected(2)


def test_nothing_is_sent_of_a_run_that_has_no_metrics_yet(uri, experiment_id, make_run):
    folder = make_run()
    assert reconcile(folder, uri, experiment_id) is None
    with folder.lock():
        assert reconcile(folder, uri, experiment_id) is None
    assert runs_in(uri, experiment_id) == []


@pytest.mark.slow
def test_a_run_without_a_process_is_killed_and_runs_again(uri, experiment_id, make_run, holder):
    folder = make_run(epochs=1)
    folder.checkpoint.write_bytes(b"weights")
    process = holder(folder)
    run_id = reconcile(folder, uri, experiment_id).run_id
    assert client(uri).get_run(run_id).info.status == "RUNNING"
    process.kill()
    process.wait()
    reconcile(folder, uri, experiment_id)
    assert client(uri).get_run(run_id).info.status == "KILLED"
    with folder.lock():
        reconcile(folder, uri, experiment_id)
        assert client(uri).get_run(run_id).info.status == "RUNNING"


def test_a_run_killed_before_its_first_checkpoint_is_killed(uri, experiment_id, make_run):
    folder = make_run(epochs=1)
    with folder.lock():
        state = reconcile(folder, uri, experiment_id)
    reconcile(folder, uri, experiment_id, state)
    assert client(uri).get_run(state.run_id).info.status == "KILLED"


def test_a_diverged_run_has_failed_and_is_tagged_with_the_reason(uri, experiment_id, make_run, result):
    folder = make_run(epochs=1)
    folder.finish(replace(result, state="diverged", note="loss is NaN at step 12"))
    run = client(uri).get_run(reconcile(folder, uri, experiment_id).run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["headsweep.state"] == "diverged: loss is NaN at step 12"


def test_a_failed_run_is_tagged_with_the_reason_until_it_succeeds(uri, experiment_id, make_run, result):
    folder = make_run(epochs=1)
    folder.fail("Traceback\n  line\nValueError: no")
    state = reconcile(folder, uri, experiment_id)
    run = client(uri).get_run(state.run_id)
    assert (run.info.status, run.data.tags["headsweep.state"]) == ("FAILED", "failed: ValueError: no")
    folder.finish(result)
    reconcile(folder, uri, experiment_id)
    run = client(uri).get_run(state.run_id)
    assert (run.info.status, run.data.tags["headsweep.state"]) == ("FINISHED", "finished")


def test_what_is_not_finite_is_a_tag_and_no_point(uri, experiment_id, make_run, held):
    folder = make_run(epochs=1)
    folder.metrics_log.append(Entry(2, 20, {"train/loss": math.inf, "val/top1": math.nan}))
    run_id = reconcile(folder, uri, experiment_id).run_id
    assert held(run_id) == expected(1)
    said = client(uri).get_run(run_id).data.tags["headsweep.nonfinite"]
    assert said == "train/loss is inf at epoch 2; val/top1 is nan at epoch 2"


def test_two_launchers_of_one_run_log_each_point_once(make_run, make_entry, uri, experiment_id, history):
    """Each has state before the other sends; the test metrics share the last epoch with the validation's."""
    folder = make_run(epochs=1)
    one, other = (reconcile(folder, uri, experiment_id) for _ in range(2))
    folder.metrics_log.append(make_entry(2))
    reconcile(folder, uri, experiment_id, one)
    folder.metrics_log.append(Entry(2, 20, {"test/top1": 0.5}, {"time": 1700000009.0}))
    reconcile(folder, uri, experiment_id, other)
    assert all(len({step for step, *_ in rows}) == len(rows) for rows in history(uri, one.run_id).values())
