"""Whatever a cluster does to a sweep's jobs, the sweep ends as it would have on one quiet machine.

The end of a job's time is not waited for, as the shortest is five minutes: the USR2 that SLURM sends before it is sent
by `scancel --signal`, which a job cannot tell from it.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from cluster import (
    PATIENCE,
    Cluster,
    began,
    calm,
    jobs_of,
    lingering,
    output_of,
    sabotage,
    sweep,
    table,
    wait_until,
)
from mlflow import MlflowClient

from comparing import differences
from factories import by_seed
from headsweep.tracking.run_folder import RunFolder

pytestmark = pytest.mark.slow

SEEDS = range(9)
UNLUCKY, CANCELLED, KILLED = 6, 7, 8  # the last element of an array has the number of the whole array
GRID = [f"seed={','.join(map(str, SEEDS))}", "duration='2 epochs'", "tracking.models=false"]
GRID += ["hydra.launcher.cpus=2", "hydra.launcher.threads=1", "+hydra.launcher.extra.hold=true"]


def test_a_sweep_survives_preemption_signals_and_dead_nodes(
    cluster: Cluster, undisturbed: Path, empty_store: Path, tmp_path: Path
):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    jobs = submit(cluster, tmp_path)
    runs = by_seed(tmp_path)
    watch = cluster.start_headsweep("watch", "--output", tmp_path)
    try:
        stopped, died = disturb(cluster, jobs, runs, tmp_path)
        _, stderr = watch.communicate(timeout=PATIENCE)
    finally:
        watch.kill()
    assert watch.returncode == 1, stderr
    assert {seed for seed, folder in runs.items() if folder.result() is None} == {CANCELLED, UNLUCKY}, stderr
    assert {seed: began(runs[seed]) for seed in stopped} == {seed: [0, 7] for seed in stopped}, "no step was lost"
    assert {seed: began(runs[seed]) for seed in died} == {seed: [0, 4] for seed in died}, "from the last whole epoch"
    assert "1 of 9 runs failed, 1 not finished; " in stderr and "RuntimeError: seed 6 is unlucky" in stderr
    check_failure(cluster, jobs[UNLUCKY], runs[UNLUCKY])

    retry(cluster, runs, tmp_path)
    for seed, folder in runs.items():
        assert differences(folder, by_seed(undisturbed)[seed]) == []
    assert table(sweep(tmp_path)) == table(sweep(undisturbed))
    check_mlflow(tmp_path, runs)
    again = cluster.train(*GRID, f"paths.output={tmp_path}")
    assert "9 done already" in again.stdout and "\njob " not in again.stdout


def submit(cluster: Cluster, output: Path) -> dict[int, str]:
    """Submit jobs that wait to be released, by two commands at once; seed -> job. Their runs misbehave."""
    both = [cluster.start_train(*GRID, f"paths.output={output}") for _ in range(2)]
    answers = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    reported = "".join(stdout for stdout, _ in answers)
    assert reported.count("\njob ") == len(SEEDS) and "9 queued or training already" in reported
    sabotage(output)
    jobs = jobs_of(sweep(output))
    return {seed: jobs[folder.path.name] for seed, folder in by_seed(output).items()}


def disturb(
    cluster: Cluster, jobs: Mapping[int, str], runs: Mapping[int, RunFolder], output: Path
) -> tuple[list[int], list[int]]:
    """Let two runs of each node suffer, then those that come after them; the runs that were stopped, and that died."""
    cluster.ask("scancel", jobs[CANCELLED])
    cluster.ask("scontrol", "release", jobs[0].partition("_")[0])
    preempted, doomed, stopped = by_node(cluster, jobs, lingering(runs, range(6)))
    place, dead = (cluster.node(jobs[seeds[0]]) for seeds in (preempted, doomed))
    cluster.send_usr2(jobs[stopped[0]])
    cluster.ask("scontrol", "requeue", jobs[stopped[1]])
    cluster.ask(
        "sbatch", "--partition=urgent", "--exclusive", f"--nodelist={place}", "--wrap=true", "--output=/dev/null"
    )
    for seed in (*preempted, *stopped):
        wait_until(lambda seed=seed: "stopping:" in output_of(output, jobs[seed]))
        calm(runs, [seed])
    cluster.kill_node(dead)
    calm(runs, doomed)
    lingering(runs, [KILLED])
    os.kill(int((runs[KILLED].path / "here").read_text()), signal.SIGKILL)
    calm(runs, [KILLED])
    # On other nodes: one that is back at once is ordered again to end its former jobs, and ends the new ones.
    wait_until(lambda: all(len(began(runs[seed])) == 2 for seed in doomed))
    cluster.start_node(dead)
    return [*preempted, *stopped], [*doomed, KILLED]


def by_node(cluster: Cluster, jobs: Mapping[int, str], seeds: Iterable[int]) -> list[list[int]]:
    """The runs that share a node."""
    found = defaultdict(list)
    for seed in seeds:
        found[cluster.node(jobs[seed])].append(seed)
    return list(found.values())


def check_failure(cluster: Cluster, job: str, folder: RunFolder) -> None:
    """A bug is tried twice in one job, and the job is not requeued."""
    assert folder.failed_tries() == 2 and began(folder) == [0, 4]
    reported = cluster.ask("scontrol", "show", "job", job)
    assert "JobState=FAILED" in reported and "Restarts=0" in reported


def retry(cluster: Cluster, runs: Mapping[int, RunFolder], output: Path) -> None:
    """Train, as jobs, what was cancelled and what failed, now that the bug is mended."""
    calm(runs, [CANCELLED, UNLUCKY])
    again = cluster.headsweep("retry", "--output", output)
    assert again.returncode == 0, again.stderr
    assert "\n2 of 9 runs of " in again.stdout and again.stdout.count("job ") == 2
    cluster.ask("scontrol", "release", jobs_of(sweep(output))[runs[UNLUCKY].path.name].partition("_")[0])
    watch = cluster.headsweep("watch", "--output", output)
    assert watch.returncode == 0, watch.stderr
    assert began(runs[UNLUCKY]) == [0, 4, 4]


def check_mlflow(output: Path, runs: Mapping[int, RunFolder]) -> None:
    """Each run is there once, with every point of its metrics log."""
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiments = [item.experiment_id for item in client.search_experiments()]
    known = client.search_runs(experiments, "tags.`headsweep.kind` = 'run'")
    assert sorted(run.data.tags["headsweep.fingerprint"] for run in known) == sorted(f.path.name for f in runs.values())
    for run in known:
        folder = RunFolder(output / "runs" / run.data.tags["headsweep.fingerprint"])
        points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "val/loss")]
        assert points == [
            (e.epoch, e.metrics["val/loss"]) for e in folder.metrics_log.entries() if "val/loss" in e.metrics
        ]
        assert run.info.status == "FINISHED"
