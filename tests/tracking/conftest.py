"""Run folders made by hand, and a migrated sqlite store that every test gets a copy of."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3
from mlflow import MlflowClient
from mlflow.entities import Run

import postgres
from commands import answers
from commands import wait_for as wait_for_condition
from headsweep.tracking import atomic_files
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.mlflow.store import client, default_uri, prepare
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunResult
from headsweep.tracking.sweep_folder import SweepFolder
from programs import Program, write_interpreter

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A planned run with `epochs` logged epochs; equal arguments give equal metrics."""

    def make(name: str = "a", epochs: int = 0, *, clock: bool = True) -> RunFolder:
        folder = RunFolder(tmp_path / "runs" / name)
        config = {"head": {"name": "ga"}, "heads": 4, "tracking": {"uri": None, "experiment": "study"}}
        record = RunRecord(
            fingerprint=f"{name:0>12}",
            group="g",
            name=f"ga4-{name}",
            sweep="pilot",
            seed=3,
            config=config,
            parameters={"head.name": "ga", "heads": 4, "optimizer.lr": 0.001},
            code={"commit": "abc123", "dirty": True},
            cost={"parameters": 1000, "flops": 2_000_000, "token_bytes": 1024},
        )
        folder.create(record, "heads: 4\n")
        for epoch in range(1, epochs + 1):
            folder.metrics_log.append(entry(epoch, clock=clock))
        return folder

    return make


@pytest.fixture
def make_sweep(tmp_path: Path) -> Callable[..., SweepFolder]:
    """A planned sweep of some runs."""

    def make(runs: list[RunFolder], name: str = "pilot") -> SweepFolder:
        sweep = SweepFolder(tmp_path / "sweeps" / name)
        fingerprints = [folder.path.name for folder in runs]
        atomic_files.write_json(sweep.path / "plan.json", {"axes": ["optimizer.lr", "seed"], "runs": fingerprints})
        return sweep

    return make


@pytest.fixture
def contents() -> Callable[[str, str], dict[str, object]]:
    """Everything that an experiment holds, by name of run; a parent is called by its name."""

    def read(uri: str, experiment: str) -> dict[str, object]:
        store = client(uri)
        runs = store.search_runs([store.get_experiment_by_name(experiment).experiment_id])
        names = {run.info.run_id: run.info.run_name for run in runs}
        assert len(names) == len(set(names.values()))
        return {run.info.run_name: _content(store, run, names) for run in runs}

    return read


def _content(store: MlflowClient, run: Run, names: dict[str, str]) -> dict[str, object]:
    run_id = run.info.run_id
    tags = dict(run.data.tags)
    if "mlflow.parentRunId" in tags:
        tags["mlflow.parentRunId"] = names[tags["mlflow.parentRunId"]]
    return {
        "info": (run.info.status, run.info.start_time, run.info.end_time),
        "tags": tags,
        "params": run.data.params,
        "metrics": {
            name: sorted((m.step, m.value, m.timestamp) for m in store.get_metric_history(run_id, name))
            for name in run.data.metrics
        },
        "files": _files(store, run),
    }


def _files(store: MlflowClient, run: Run) -> dict[str, str]:
    """The files of a run, by name. Those of a store on this disk are read there: to download one takes 15 ms."""
    place = Path(run.info.artifact_uri.removeprefix("file://"))
    if place.is_dir():
        return {path.name: path.read_text() for path in place.iterdir()}
    run_id = run.info.run_id
    return {
        file.path: Path(store.download_artifacts(run_id, file.path)).read_text()
        for file in store.list_artifacts(run_id)
    }


def entry(epoch: int, *, clock: bool = True, late: float = 0.0) -> Entry:
    metrics = {"train/loss": 1 / epoch, "val/top1": epoch / 9700}
    return Entry(epoch, 10 * epoch, metrics, {"time": 1.7e9 + epoch + late} if clock else {})


@pytest.fixture
def make_entry() -> Callable[..., Entry]:
    """The entry of one epoch: the same metrics whenever it is trained."""
    return entry


@pytest.fixture
def result() -> RunResult:
    """How a finished run ends."""
    return RunResult("finished", {"test/top1": 0.5}, 1, 10, environment={"device": "cpu"})


@pytest.fixture
def output(tmp_path: Path, empty_store: Path) -> Path:
    """An output folder whose store is migrated already."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def uri(output: Path) -> str:
    """Address of the store in `output`."""
    return default_uri(output)


@pytest.fixture
def experiment_id(uri: str, output: Path) -> str:
    """The experiment `study` in it."""
    return prepare(uri, "study", output)


@pytest.fixture
def history() -> Callable[[str, str], dict[str, list[tuple[int, float, int]]]]:
    """Metric -> every row that a store holds of it: step, value, timestamp."""

    def read(uri: str, run_id: str) -> dict[str, list[tuple[int, float, int]]]:
        store = client(uri)
        return {
            name: sorted((m.step, m.value, m.timestamp) for m in store.get_metric_history(run_id, name))
            for name in sorted(store.get_run(run_id).data.metrics)
        }

    return read


@pytest.fixture
def holder() -> Iterator[Callable[[RunFolder], subprocess.Popen[str]]]:
    """Another process that holds a run's lock until it is killed."""
    started: list[subprocess.Popen[str]] = []

    def hold(folder: RunFolder) -> subprocess.Popen[str]:
        program = (
            "import sys,time,filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", f"{program}; time.sleep(60)", str(folder.path / "lock")],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """The address of a true MLflow server with a store of its own."""
    place, port = tmp_path_factory.mktemp("server"), postgres.free_port()
    shutil.copy(empty_store, place / "mlflow.db")
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "files")]
    warm = f"import runpy, sys; sys.executable = {write_interpreter(place / 'python')!r}"  # which it starts once more
    run = "runpy.run_module('mlflow', run_name='__main__', alter_sys=True)"
    process = Program(["-c", f"{warm}; {run}", *command, *stores], new_session=True)
    try:
        wait_for_condition(lambda: answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port of this machine that refuses connections, and that no other program can take meanwhile."""
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The addresses that MLflow's client has tried to connect to."""
    found: list[tuple[str, int]] = []
    connect = urllib3.util.connection.create_connection

    def counted(address: tuple[str, int], *arguments: object, **options: object) -> socket.socket:
        found.append(address)
        return connect(address, *arguments, **options)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", counted)
    return found


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object]], None]:
    return wait_for_condition
