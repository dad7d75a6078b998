"""The main job by its true command, on tiny models and few images, but in full: processes, files, MLflow, table."""

import csv
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from commands import TINY, TINY_CELL, TRAIN, fresh, start, train, wait_for
from comparing import differences
from factories import planned
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from programs import Program

pytestmark = pytest.mark.slow

TRACKED = [*TINY, "tracking.models=false"]
SABOTAGE = str(Path(__file__).with_name("sabotage.py"))
GRID = ["-m", "head=seqpool,seqattn", "heads=2", "duration='2 epochs'", *TRACKED]


IMPORTED = """
import runpy, sys
from multiprocessing import Pipe
from pathlib import Path
from headsweep.launch.local import preload
before = set(sys.modules)
runpy.run_path(sys.argv[1], run_name="__mp_main__")
path, (near, far) = Path(sys.argv[2]), Pipe()
preload.worker._follow_parent = lambda: None
preload.worker.train([path], 1, None, None, far)
(path / "imported").write_text("\\n".join(sys.modules.keys() - before))
"""


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


def statuses(output: Path, runs: list[RunFolder]) -> list[str]:
    """Those in MLflow of some runs."""
    names = {run.record().fingerprint for run in runs}
    return [run.info.status for run in mlflow_runs(output)[1] if run.data.tags["headsweep.fingerprint"] in names]


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
    """Torch and timm are hundreds of modules each; what is left are parts that a library loads late.

    A new interpreter imports what a forkserver does, and the script of the command as each of its processes does.
    """
    folder = planned(tmp_path, "duration='1 steps'")
    answer = fresh("-c", IMPORTED, TRAIN, str(folder.path))
    assert answer.returncode == 0, answer.stderr
    assert folder.state() is RunState.finished
    imported = (folder.path / "imported").read_text().split()
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
    answer = train(*GRID, "seed=0,1", "tracking=none", f"paths.output={output}")
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
        answer = train(*GRID, "seed=1", "tracking=none", f"paths.output={output}")
    finally:
        (other.path / "result.json").write_text(kept)
    assert answer.returncode == 0, answer.stderr
    assert "2 runs of 4 in digits-cct_2_3x2-" in answer.stderr and "2 done already" in answer.stderr
    assert [(row["head"], row["heads"], row["state"], row["n"]) for row in rows(output)] == [
        ("seqpool", "2", "finished", "2"),
        ("seqattn", "2", "finished", "1"),
        ("seqattn", "2", "unfinished", "0"),
    ]


def test_a_single_run_and_every_number_of_slots_give_the_same_bits(finished, tmp_path):
    """A run of the grid, two at a time, against the same alone and in one slot; Hydra's: test_hydra_launchers.py."""
    cell = ["heads=2", "head=seqattn", "duration='2 epochs'", "tracking=none", *TINY_CELL]
    ways = {"single": [], "slot": ["-m", "hydra.launcher.slots=1", "hydra.launcher.threads=1"]}
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
    place = f"paths.output={output}"
    job = ["-m", "duration='1 epochs'", "schedule.warmup='0 epochs'", *TINY, "batch_size=32,256", place]
    job += ["optimizer.lr=1e-3,1e30", "hydra.launcher.exclude=['batch_size=256 optimizer.lr=1e30']"]
    answer = train(*job)
    assert answer.returncode == 1
    assert "1 of 3 runs failed; the same command tries them again" in answer.stderr
    assert "batch_size=256: " in answer.stderr and "Traceback" not in answer.stderr
    states = {name: folder.state().value for name, folder in folders(output).items()}
    assert sorted(states.values()) == ["diverged", "failed", "finished"]
    assert {row["state"] for row in rows(output)} == {"diverged", "failed", "finished"}
    again = train(*job)
    assert again.returncode == 1
    assert "2 done already, 1 failed run is tried again (try 2 of 3)" in again.stderr
    _, logged = mlflow_runs(output)
    models = sorted((run.info.status, len(run.outputs.model_outputs)) for run in logged)
    assert models == [("FAILED", 0)] * 2 + [("FINISHED", 1)], "a model that loads and serves"


def test_stopped_by_ctrl_c_or_killed_and_given_again_the_command_goes_on(output):
    """SIGINT, then SIGKILL to launcher and runs; that the bits are the same is shown in test_killed.py."""
    short = ["seed=8", "duration='2 epochs'", *TRACKED, "debug.train_images=64", "batch_size=2"]
    job = ["-m", *short, f"paths.output={output}"]  # an epoch is 29 slow steps
    process = Program([SABOTAGE, *job, "heads=1,2,3"], new_session=True)
    wait_for(lambda: len(list(output.glob("runs/*/checkpoint.pt"))) == 2)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip().endswith("headsweep: interrupted; the same command goes on from the runs' last checkpoints")
    assert "Traceback" not in stderr and not list(output.glob("runs/*/failure.txt"))
    *begun, third = (folders(output)[f"seqpool{heads}-cct_2_3x2-digits-seed8"] for heads in (1, 2, 3))
    steps = [torch.load(folder.checkpoint, weights_only=True)["step"] for folder in begun]
    assert all(29 < step < 58 for step in steps), f"in the middle of an epoch, not {steps}"
    assert ({folder.state() for folder in begun}, third.state()) == ({RunState.partial}, RunState.new)
    assert statuses(output, begun) == ["KILLED"] * 2

    for folder in begun:
        (folder.path / "stepped").unlink()
    process = Program([SABOTAGE, *job, "heads=1,2"], new_session=True)
    wait_for(lambda: len(list(output.glob("runs/*/stepped"))) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: all(folder.state() is not RunState.running for folder in begun))
    answer = train(*job, "heads=1,2")
    assert answer.returncode == 0, answer.stderr
    assert "2 to be continued" in answer.stderr
    assert [len(folder.metrics_log.entries()) for folder in begun] == [3, 3]
    assert statuses(output, begun) == ["FINISHED"] * 2


def test_two_identical_sweeps_at_once_share_the_work(output):
    """No run is trained twice, each command trains some, and both print the whole table."""
    grid = ["heads=1,2,3", "duration='3 epochs'", "seed=8", *TRACKED, "hydra.launcher.slots=1"]
    job = ["-m", *grid, f"paths.output={output}"]
    first = Program([SABOTAGE, *job], new_session=True)
    wait_for(lambda: list(output.glob("runs/*/checkpoint.pt")))
    os.killpg(first.pid, signal.SIGSTOP)  # it trains at least one run, and the second command the others
    second = start(*job)
    wait_for(lambda: len(list(output.glob("runs/*/result.json"))) == 2)
    os.killpg(first.pid, signal.SIGCONT)
    outputs = [process.communicate(timeout=200) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    for folder in folders(output).values():
        assert [entry.step for entry in folder.metrics_log.entries()] == [4, 8, 12, 12]
    assert outputs[0][0] == outputs[1][0], "two tables of three runs"
    elsewhere = [stderr.count("(in another command)") for _, stderr in outputs]
    assert min(elsewhere) > 0, elsewhere
    _, runs = mlflow_runs(output)
    children = [run for run in runs if "headsweep.fingerprint" in run.data.tags]
    assert len(children) == 3
