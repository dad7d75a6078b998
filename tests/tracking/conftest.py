"""Run folders made by hand, and a migrated sqlite store that every test gets a copy of."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headsweep.tracking.mlflow_store import client, default_uri, prepare
from headsweep.tracking.run_folder import RunFolder, RunRecord, RunResult
from headsweep.tracking.spool import Entry

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A planned run with `epochs` spooled epochs; equal arguments give equal metrics."""

    def make(name: str = "a", epochs: int = 0, *, clock: bool = True) -> RunFolder:
        folder = RunFolder(tmp_path / "runs" / name)
        config = {"head": {"name": "ga"}, "heads": 4}
        record = RunRecord(
            fingerprint=f"{name:0>12}",
            group="g",
            name=f"ga4-{name}",
            sweep="pilot",
            seed=3,
            config=config,
            parameters={"head.name": "ga", "heads": 4, "optimizer.lr": 0.001},
            code={"commit": "abc123", "dirty": True},
            cost={"parameters": 1000, "flops": 2_000_000},
        )
        folder.create(record, "heads: 4\n")
        for epoch in range(1, epochs + 1):
            folder.spool.append(entry(epoch, clock=clock))
        return folder

    return make


def entry(epoch: int, *, clock: bool = True, late: float = 0.0) -> Entry:
    metrics = {"train/loss": 1 / epoch, "val/top1": epoch / 97}
    return Entry(epoch, 10 * epoch, metrics, {"time": 1.7e9 + epoch + late} if clock else {})


@pytest.fixture
def make_entry() -> Callable[..., Entry]:
    """The entry of one epoch: the same metrics whenever it is trained."""
    return entry


@pytest.fixture
def result() -> RunResult:
    """How a finished run ends."""
    return RunResult("finished", {"test/top1": 0.5}, 3, 30, environment={"device": "cpu"})


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    prepare(default_uri(folder), "unused", folder)
    return folder / "mlflow.db"


@pytest.fixture
def output(tmp_path: Path, _migrated: Path) -> Path:
    """An output folder whose store is migrated already."""
    shutil.copy(_migrated, tmp_path / "mlflow.db")
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


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds, at most 60 s."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "waited 60 s in vain"
            time.sleep(0.02)

    return wait
