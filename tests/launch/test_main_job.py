"""The main job by its true command, on tiny models and few images, but in full: processes, files, MLflow, table."""

import csv
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from commands import TINY, TINY_RUN, TRAIN, fresh, start, train, wait_for
from comparing import differences
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState

pytestmark = pytest.mark.slow

TRACKED = [*TINY, "tracking.models=false"]
GRID = ["-m", "head=seqpool,seqattn", "heads=2", "duration='2 epochs'", *TRACKED]


@pytest.fixture
def output(tmp_path, empty_store):
    """A folder for runs whose store is migrated already."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def folders(output: Path) -> dict[str, RunFolder]:
    found = [RunFolder(path) for path in sorted((output / "runs").iterdir())]
    return {folder.record().name: folder for folder in found}


def rows(output: Path) -> list[dict[str, str]]:
    (table,) = (output / "sweeps").glob("*/table.csv")
    return list(csv.DictReader(table.open()))


def mlflow_runs(output: Path):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiments = [item.experiment_id for item in client.search_experiments()]
    return client, client.search_runs(experiments, "tags.`headsweep.kind` = 'run'")  # without the sweeps' parents


@pytest.fixture(scope="module")
def finished(tmp_path_factory, empty_store):
    """The grid, trained once."""
    output = tmp_path_factory.mktemp("grid")
    shutil.copy(empty_store, output / "mlflow.db")
    answer = train(*GRID, f"paths.output={output}")
    assert answer.returncode == 0, answer.stderr
    return output, answer


def test_every_cell_is_trained_and_is_a_row_of_the_table(finished):
    output, answer = finished
    assert {folder.state() for folder in folders(output).values()} == {RunState.finished}
    assert [(row["head"], row["heads"]) for row in rows(output)] == [("seqpool", "2"), ("seqattn", "2")]
    assert "seqattn" in answer.stdout and "mlflow ui --backend-store-uri" in answer.stdout
    assert (next((output / "sweeps").iterdir()) / "table.md").read_text().startswith("|")


def test_a_run_finds_imported_what_it_needs(tmp_path):
    """Torch, timm and scikit-learn are hundreds of modules each; what is left are parts that a library loads late.

    A new interpreter and its processes list what they import, that of the run in its log.
    """
    job = ["-m", "duration='1 steps'", *TINY, "tracking=none", f"paths.output={tmp_path}"]
    answer = fresh(TRAIN, *job, PYTHONPROFILEIMPORTTIME="1")
    assert answer.returncode == 0, answer.stderr
    (folder,) = folders(tmp_path).values()
    imported = [line for line in folder.log.read_text().splitlines() if line.startswith("import time:")]
    assert 0 < len(imported) < 30, imported


def test_every_run_is_in_mlflow_as_in_its_metrics_log(finished):
    output, _ = finished
    client, runs = mlflow_runs(output)
    known = {folder.record().fingerprint: folder for folder in folders(output).values()}
    assert {run.data.tags["headsweep.fingerprint"] for run in runs} == set(known)
    for run in runs:
        entries = known[run.data.tags["headsweep.fingerprint"]].metrics_log.entries()
        assert run.info.status == "FINISHED"
        for metric in ("train/loss", "val/loss", "val/top1", "val/top5", "test/top1", "test/top5"):
            logged = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
            assert logged == [(e.epoch, e.metrics[metric]) for e in entries if metric in e.metrics]


def test_the_same_command_again_trains_nothing(finished):
    output, first = finished
    stamps = {
        path: path.stat().st_mtime_ns
        for path in output.glob("runs/*/*")
        if path.suffix not in (".lock", "") and path.stem != "mlflow"
    }
    again = train(*GRID, f"paths.output={output}")
    assert again.returncode == 0
    assert "2 done already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(mlflow_runs(output)[1]) == 2
    assert again.stdout == first.stdout


def test_more_seeds_add_only_the_new(finished):
    output, _ = finished
    answer = train(*GRID, "seed=0,1", f"paths.output={output}")
    assert answer.returncode == 0, answer.stderr
    assert "4 runs" in answer.stderr and "2 done already" in answer.stderr
    assert len(folders(output)) == 4


def test_fewer_seeds_are_a_part_of_the_sweep_and_of_its_table(finished):
    """Given after more seeds; the only run that is missing is one of another command."""
    output, _ = finished
    other = folders(output)["seqattn2-cct_2_3x2-digits-seed0"]
    kept = (other.path / "result.json").read_text()
    (other.path / "result.json").unlink()
    try:
        answer = train(*GRID, "seed=1", f"paths.output={output}")
    finally:
        (other.path / "result.json").write_text(kept)
    assert answer.returncode == 0, answer.stderr
    assert "2 runs of 4 in digits-cct_2_3x2-" in answer.stderr and "2 done already" in answer.stderr
    assert [(row["head"], row["heads"], row["state"], row["n"]) for row in rows(output)] == [
        ("seqpool", "2", "finished", "2"),
        ("seqattn", "2", "finished", "1"),
        ("seqattn", "2", "unfinished", "0"),
    ]


def test_every_launcher_and_number_of_slots_gives_the_same_bits(finished, tmp_path):
    """A run of the grid, two at a time, against the same as a single run, in one slot, and by Hydra's own launcher."""
    cell = ["heads=2", "head=seqattn", "duration='2 epochs'", "tracking=none", *TINY_RUN]
    ways = {
        "single": [],
        "slot": ["-m", "hydra.launcher.slots=1", "hydra.launcher.threads=1"],
        "basic": ["-m", "hydra/launcher=basic"],
    }
    processes = [start(*way, *cell, f"paths.output={tmp_path / name}") for name, way in ways.items()]
    for process in processes:
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 0, stderr
    name = "seqattn2-cct_2_3x2-digits-seed0"
    expected = folders(finished[0])[name]
    for way in ways:
        got = folders(tmp_path / way)[name]
        assert got.record().fingerprint == expected.record().fingerprint
        assert differences(got, expected) == [], way


def test_runs_that_fail_or_diverge_do_so_alone(output):
    """One trains, one asks for a batch larger than the set, one has a learning rate that no loss survives."""
    job = ["-m", "duration='1 epochs'", "schedule.warmup='0 epochs'", *TINY, f"paths.output={output}"]
    answer = train(*job, "batch_size=32,256", "optimizer.lr=1e-3,1e30")
    assert answer.returncode == 1
    assert "2 of 4 runs failed; the same command tries them again" in answer.stderr
    assert "batch_size=256: " in answer.stderr and "Traceback" not in answer.stderr
    states = {name: folder.state().value for name, folder in folders(output).items()}
    assert sorted(states.values()) == ["diverged", "failed", "failed", "finished"]
    assert {row["state"] for row in rows(output)} == {"diverged", "failed", "finished"}
    again = train(*job, "batch_size=32,256", "optimizer.lr=1e-3,1e30")
    assert again.returncode == 1
    assert "2 done already, 2 failed runs are tried again (try 2 of 3)" in again.stderr
    _, logged = mlflow_runs(output)
    models = sorted((run.info.status, len(run.outputs.model_outputs)) for run in logged)
    assert models == [("FAILED", 0)] * 3 + [("FINISHED", 1)], "a model that loads and serves"


def test_stopped_by_ctrl_c_or_killed_and_given_again_the_command_goes_on(output):
    """SIGINT, then SIGKILL to launcher and runs; that the bits are the same is shown in test_killed.py."""
    job = ["-m", "heads=1,2", "duration='20 epochs'", *TRACKED, f"paths.output={output}"]
    process = start(*job)
    wait_for_epochs(output, 2, runs=2)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip().endswith("headsweep: interrupted; the same command goes on from the runs' last checkpoints")
    assert "Traceback" not in stderr
    assert {folder.state() for folder in folders(output).values()} == {RunState.partial}
    assert {run.info.status for run in mlflow_runs(output)[1]} == {"KILLED"}

    reached = min(len(folder.metrics_log.entries()) for folder in folders(output).values())
    process = start(*job)
    wait_for_epochs(output, reached + 2, runs=2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until_free(output)
    answer = train(*job)
    assert answer.returncode == 0, answer.stderr
    assert "2 to be continued" in answer.stderr
    assert [len(folder.metrics_log.entries()) for folder in folders(output).values()] == [21, 21]
    assert {run.info.status for run in mlflow_runs(output)[1]} == {"FINISHED"}


def test_two_identical_sweeps_at_once_share_the_work(output):
    """No run is trained twice, each command trains some, and both print the whole table."""
    job = ["-m", "heads=1,2,3", "duration='6 epochs'", *TRACKED, "hydra.launcher.slots=1", f"paths.output={output}"]
    first = start(*job)
    wait_for_epochs(output, 1)
    os.killpg(first.pid, signal.SIGSTOP)  # it trains at least one run, and the second command the others
    second = start(*job)
    wait_for(lambda: len(list(output.glob("runs/*/result.json"))) == 2)
    os.killpg(first.pid, signal.SIGCONT)
    outputs = [process.communicate(timeout=200) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    for folder in folders(output).values():
        assert [entry.step for entry in folder.metrics_log.entries()] == [*range(4, 28, 4), 24]
    assert outputs[0][0] == outputs[1][0], "two tables of three runs"
    elsewhere = [stderr.count("(in another command)") for _, stderr in outputs]
    assert min(elsewhere) > 0, elsewhere
    _, runs = mlflow_runs(output)
    children = [run for run in runs if "headsweep.fingerprint" in run.data.tags]
    assert len(children) == 3


def wait_for_epochs(output: Path, epochs: int, runs: int = 1) -> None:
    """Until so many runs have so many epochs in their metrics logs, and a checkpoint of all but the last two."""
    for _ in range(1200):
        lines = [path.read_bytes().count(b"\n") for path in output.glob("runs/*/metrics.jsonl")]
        if sum(line >= epochs for line in lines) >= runs:
            return
        time.sleep(0.05)
    raise TimeoutError(f"no run of {output} reached {epochs} epochs")


def wait_until_free(output: Path) -> None:
    """Until the processes of the runs have seen that their launcher is gone."""
    for _ in range(200):
        if all(RunFolder(path).state() is not RunState.running for path in output.glob("runs/*")):
            return
        time.sleep(0.05)
    raise TimeoutError("a run outlived its launcher")
