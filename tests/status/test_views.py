"""What another terminal sees of sweeps and runs: all of it from files, none of it disturbing a run."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from headsweep.errors import UserError
from headsweep.status.find import find_each, find_run, find_sweep
from headsweep.status.read import read_run, read_sweep
from headsweep.status.render import show
from headsweep.tracking import atomic_files
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunResult, RunState


@pytest.fixture
def make_run(tmp_path):
    """A planned run with `epochs` logged epochs of 10 steps and 2 seconds, at a top-1 of `top1`."""

    def make(name: str, epochs: int = 0, *, top1: float = 0.5, duration: str = "20 epochs", group: str = "g"):
        folder = RunFolder(tmp_path / "runs" / name)
        config = {"duration": duration, "batch_size": 5}
        folder.create(RunRecord(name, group, f"head-{name}", "s", 0, config, {}, {}, {}), "seed: 0\n")
        for epoch in range(1, epochs + 1):
            folder.metrics_log.append(Entry(epoch, 10 * epoch, {"val/top1": top1}, {"time": 1.7e9 + 2 * epoch}))
        return folder

    return make


@pytest.fixture
def make_sweep(tmp_path):
    def make(name: str, *folders: RunFolder) -> Path:
        runs = [folder.path.name for folder in folders]
        atomic_files.write_json(tmp_path / "sweeps" / name / "plan.json", {"name": name, "axes": [], "runs": runs})
        return tmp_path / "sweeps" / name

    return make


def finished(top1: float) -> RunResult:
    return RunResult("finished", {"val/top1": top1}, 20, 200)


def test_a_sweep_counts_its_runs_by_state_and_names_the_best(make_run, make_sweep):
    done, failed, partial, running, diverged = (make_run(name, 3, top1=0.7) for name in "abcde")
    done.finish(finished(0.8))
    diverged.finish(RunResult("diverged", {"val/top1": 0.99}, 3, 30, note="the loss is nan at step 31 of 200"))
    failed.fail("Traceback\nValueError: no")
    partial.checkpoint.write_bytes(b"weights")
    with running.lock():
        sweep = read_sweep(make_sweep("s", done, failed, partial, running, diverged, make_run("f")))
    states = ("finished", "running", "failed", "diverged", "partial", "new")
    assert [(state.value, count) for state, count in sweep.counts.items()] == [(state, 1) for state in states]
    assert sweep.best.name == "head-a"
    notes = {run.name: run.note for run in sweep.runs if run.note}
    assert notes == {"head-b": "ValueError: no", "head-e": "the loss is nan at step 31 of 200"}


@pytest.mark.parametrize(
    ("duration", "epochs"), [("7 epochs", 7), ("2.5 epochs", 3), ("65 steps", 7), ("1e3 images", 20)]
)
def test_an_epoch_is_one_of_the_whole_duration(make_run, duration, epochs):
    view = read_run(make_run("a", 2, duration=duration))
    assert (view.epoch, view.epochs) == (2, epochs)


def test_a_long_metrics_log_reads_the_same_from_its_end(make_run):
    folder = make_run("a")
    for epoch in range(1, 101):
        metrics = {f"val/per_head/top1_{head}": 0.5 for head in range(epoch)} | {"val/top1": epoch / 200}
        folder.metrics_log.append(Entry(epoch, 10 * epoch, metrics, {"time": 1.7e9 + 2 * epoch}))
        view = read_run(folder)
        assert (view.epoch, view.top1) == (epoch, ("val/top1", epoch / 200))
    assert read_run(folder).seconds_per_epoch == 2
    with folder.metrics_log.path.open("ab") as file:
        file.write(b'{"epoch": 101, "met')  # as a crash leaves it
    assert read_run(folder).epoch == 100


def test_the_time_left_is_shared_by_those_that_run_and_ends_with_the_longest(make_run, make_sweep):
    """20 epochs of 2 s: 10 left of one, 20 of another that is new; an interrupted night does not count."""
    first, second = make_run("a", 10), make_run("b")
    folder = make_sweep("s", first, second)
    assert read_sweep(folder).seconds_left() is None  # no process trains
    with first.lock():
        assert read_sweep(folder).seconds_left() == 60
        with second.lock():
            assert read_sweep(folder).seconds_left() == 40
        first.metrics_log.append(Entry(11, 110, {}, {"time": 1.7e9 + 50_000}))
        assert read_sweep(folder).seconds_left() == 58


@pytest.mark.parametrize(
    ("name", "value", "coloured"), [("TERM", "xterm", 1), ("TERM", "dumb", 0), ("NO_COLOR", "1", 0)]
)
def test_states_are_coloured_where_that_is_welcome(make_run, make_sweep, tmp_path, monkeypatch, name, value, coloured):
    for variable in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    folder = make_run("a")
    folder.fail("ValueError: no")
    make_sweep("s", folder)
    assert ("\x1b" in show("s", tmp_path)) == coloured


def test_a_clock_that_was_set_back_gives_no_time(make_run, make_sweep, tmp_path):
    """One hour, after the first of two epochs; and by days, so that the last change is in the future."""
    run = make_run("a", 1)
    run.metrics_log.append(Entry(2, 20, {}, {"time": 1.7e9 - 3600}))
    folder = make_sweep("s", run)
    with run.lock():
        assert read_sweep(folder).seconds_left() is None
        assert "active: now\n" in show("s", tmp_path)
    os.utime(folder / "plan.json", (2e10, 2e10))
    assert "active: unknown (its last change is in the future)\n" in show("s", tmp_path)


def test_a_sweep_is_found_by_the_beginning_of_its_name_or_as_the_latest(make_run, make_sweep, tmp_path):
    with pytest.raises(UserError, match=r"no sweep in .*start one with `python src/train.py -m"):
        find_sweep("digits", tmp_path)
    old, new = make_run("a", 1), make_run("b", 1)
    digits, other = make_sweep("digits-1", old), make_sweep("digits-2", new)
    for path, age in ((old.metrics_log.path, 10), (digits / "plan.json", 500), (other / "plan.json", 500)):
        os.utime(path, (time.time() - age, time.time() - age))
    os.utime(new.metrics_log.path, (time.time() - 100, time.time() - 100))
    assert find_sweep("digits-2", tmp_path) == other
    assert find_sweep("latest", tmp_path) == digits
    with pytest.raises(UserError, match="digits: matches digits-1, digits-2"):
        find_sweep("digits", tmp_path)
    with pytest.raises(UserError, match="cifar: no such sweep; known: digits-1, digits-2"):
        find_sweep("cifar", tmp_path)
    lines = show(None, tmp_path).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["digits-1", "digits-2"]


def test_a_run_is_found_by_its_fingerprint_or_its_name(make_run, tmp_path):
    with pytest.raises(UserError, match="no run in"):
        find_run("a", tmp_path)
    one, two = make_run("ab1"), make_run("ab2")
    assert find_run("ab2", tmp_path).path == two.path
    assert find_run("head-ab1", tmp_path).path == one.path
    with pytest.raises(UserError, match=r"ab: matches ab1 \(head-ab1\), ab2 \(head-ab2\); give more"):
        find_run("ab", tmp_path)
    with pytest.raises(UserError, match="x: no run of that fingerprint or name"):
        find_run("x", tmp_path)


def test_a_run_is_found_by_its_folder_wherever_it_is_but_one_to_be_trained_only_in_the_output_folder(
    make_run, tmp_path, monkeypatch
):
    run = make_run("ab1")
    monkeypatch.chdir(run.path.parent)
    for path in (str(run.path), f"{run.path}/", "./ab1"):
        assert find_run(path, tmp_path / "elsewhere").path == run.path
    assert find_each([str(run.path)], tmp_path)[0].path == run.path
    with pytest.raises(UserError, match=f"ab1: expected a run in .*elsewhere, found one in {tmp_path}"):
        find_each([str(run.path)], tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{tmp_path}: expected the folder of a run, found no config.yaml there"):
        find_run(str(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["run.json", "result.json", "metrics.jsonl"])
def test_a_torn_file_is_a_damaged_run_among_whole_ones(name, make_run, make_sweep, tmp_path):
    whole, torn = make_run("a", 1), make_run("b", 1)
    make_sweep("s", whole, torn)
    (torn.path / name).write_text('{"fingerprint": \n')
    text = show("s", tmp_path)
    assert "2 runs: 1 new, 1 damaged" in text
    assert f"remove {torn.path} and run the sweep's command again" in text


def test_a_torn_plan_is_a_damaged_sweep_among_whole_ones(make_run, make_sweep, tmp_path):
    make_sweep("whole", make_run("a"))
    (make_sweep("torn") / "plan.json").write_text('{"runs": ["a')
    text = show(None, tmp_path)
    assert "1 run: 1 new" in text and "damaged: " in text
    assert "the sweep's command writes it again" in show("torn", tmp_path)


def test_looking_writes_nothing_and_never_makes_a_run_fail_to_start(make_run):
    folder = make_run("a")
    before = {path.name for path in folder.path.iterdir()}
    read_run(folder)
    assert {path.name for path in folder.path.iterdir()} == before
    over = threading.Event()

    def look():
        while not over.is_set():
            folder.state()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with folder.lock().acquire(timeout=20):
                assert folder.state() is RunState.running
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_who_looks_does_not_take_another_who_looks_for_the_run(make_run):
    folder = make_run("a")
    with folder.lock():
        pass
    with (folder.path / "lock").open("rb") as another:
        fcntl.flock(another, fcntl.LOCK_SH)
        assert folder.state() is RunState.new
