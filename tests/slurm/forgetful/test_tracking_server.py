"""Jobs that carry their metrics to one MLflow server on Postgres, all at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, jobs_of, sweep, wait_until
from mlflow import MlflowClient

from commands import answers
from headsweep.tracking.run_folder import RunFolder
from postgres import free_port, postgres
from programs import Program, module, write_interpreter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow server`."""
    place = tmp_path_factory.mktemp("mlflow")
    with postgres() as store:
        address = ["--host", "127.0.0.1", "--port", str(free_port())]
        stores = ["--backend-store-uri", store, "--artifacts-destination", str(place / "files")]
        mlflow = module(write_interpreter(place / "python"), "mlflow")
        process = Program([*mlflow, "server", *address, "--workers", "1", *stores], new_session=True)
        try:
            wait_until(lambda: answers(int(address[-1])))
            yield f"http://127.0.0.1:{address[-1]}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_four_runs_at_once_lose_nothing(forgetful: Cluster, server: str, tmp_path: Path):
    """Two jobs of two slots; the command that waits for them carries their metrics too."""
    seeds = "seed=0,1,2,3"
    slots = [f"hydra.launcher.{key}" for key in ("runs_per_job=2", "slots=2", "cpus=2", "threads=1")]
    tracking = [f"tracking.uri={server}", "tracking.models=false", "hydra.launcher.mlflow=jobs"]
    job = [seeds, "duration='2 epochs'", *slots, *tracking, "hydra.launcher.wait=true", f"paths.output={tmp_path}"]
    answer = forgetful.train(*job)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert len(set(jobs_of(sweep(tmp_path)).values())) == 2
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("headsweep")
    known = client.search_runs([experiment.experiment_id], "tags.`headsweep.kind` = 'run'")
    assert sorted(run.data.tags["headsweep.fingerprint"] for run in known) == sorted(
        path.name for path in (tmp_path / "runs").iterdir()
    )
    for run in known:
        assert run.info.status == "FINISHED"
        entries = RunFolder(tmp_path / "runs" / run.data.tags["headsweep.fingerprint"]).metrics_log.entries()
        for metric in {name for entry in entries for name in entry.metrics}:
            points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
            assert sorted(points) == [(e.epoch, e.metrics[metric]) for e in entries if metric in e.metrics], metric
