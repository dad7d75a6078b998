"""Two sweeps of one user that share cells, under tight limits, on a cluster on which nearly everything fails.

In this order: the queue is full; a job of the partition `urgent` preempts jobs, and the controller dies before they are
back in the queue; a node dies; the daemon of a node dies alone, so that its jobs start again while their processes
still train; the controller is away once more. Both sweeps end as they do on one quiet machine.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import PATIENCE, RUN, Cluster, began, jobs_of, output_of, sabotage, table, wait_until

from comparing import differences
from composing import compose_run
from factories import run_folders
from headsweep.launch.in_process import InProcess
from headsweep.launch.run_sweep import run_sweep
from headsweep.status import submissions, waiting
from headsweep.tracking.run_folder import RunFolder

pytestmark = pytest.mark.slow

LIMIT = 4  # of jobs in the queue, and of an array
DECAYS = [f"0.{tenth:02}" for tenth in range(5)]
SWEEPS = [(("gap", "ga"), DECAYS), (("ga", "seqpool"), DECAYS[-2:])]  # the second has two cells of the first, two new
FIRST, SECOND = ([f"head={','.join(heads)}", f"optimizer.weight_decay={','.join(decays)}"] for heads, decays in SWEEPS)
NEEDS = ["hydra.launcher.needs=['head=ga: memory=300MB time=300']"]
SHORT = ["duration='2 epochs'", "tracking=none"]
PACKED = [f"hydra.launcher.{key}" for key in ("runs_per_job=2", "cpus=2", "threads=1")]


def test_sweeps_that_share_cells_survive_everything_at_once(cluster: Cluster, tmp_path: Path):
    local, output = tmp_path / "local", tmp_path / "cluster"
    for heads, decays in SWEEPS:
        cells = [(f"head={head}", f"optimizer.weight_decay={decay}") for head in heads for decay in decays]
        run_sweep([compose_run(*cell, *SHORT, *RUN, f"paths.output={local}") for cell in cells], InProcess())
    with tight(cluster), explained(cluster, output):
        disturbed = disturb(cluster, output)
    runs = {folder.path.name: folder for folder in run_folders(output)}
    expected = {folder.path.name: folder for folder in run_folders(local)}
    assert runs.keys() == expected.keys() and len(runs) == 12
    assert {name: began(folder) for name, folder in runs.items()} == {name: [0] for name in runs} | disturbed
    assert {name: found for name in runs if (found := differences(runs[name], expected[name]))} == {}
    for path in (output / "sweeps").iterdir():
        assert table(path) == table(local / "sweeps" / path.name)


def disturb(cluster: Cluster, output: Path) -> dict[str, list[int]]:
    """Submit both sweeps and let them suffer to their ends; the steps at which some runs began, by fingerprint."""
    cluster.ask("scontrol", "update", "partitionname=main", "state=DOWN")
    answer = cluster.train_without_torch(*FIRST, *SHORT, *NEEDS, *PACKED, f"paths.output={output}")
    assert answer.returncode == 0, answer.stderr
    assert "runs wait until more jobs may be in the queue" in answer.stdout
    (first,) = (output / "sweeps").iterdir()
    jobs = {job.number: job.runs[0] for job in submissions.jobs(first)}
    assert 2 < len(jobs) <= LIMIT
    later = waiting.of_this_user(first)[0]
    runs = {folder.path.name: folder for folder in run_folders(output)}
    for name in runs.keys() - {*jobs.values(), later}:
        calm(runs[name])
    answer = cluster.train_without_torch(*SECOND, *SHORT, *PACKED, f"paths.output={output}")
    assert answer.returncode == 0 and "\njob " not in answer.stdout, answer.stdout + answer.stderr
    sabotage(output)
    for folder in run_folders(output):
        if folder.path.name not in runs:
            calm(folder)
    cluster.ask("scontrol", "update", "partitionname=main", "state=UP")
    preempted, dead = preempt_and_kill(cluster, first, {job: runs[run] for job, run in jobs.items()})
    watches = [
        cluster.start_headsweep("watch", path.name, "--output", output) for path in (output / "sweeps").iterdir()
    ]
    try:
        outlive_daemon(cluster, first, runs[later])
        lose_controller_again(cluster, runs)
        for watch in watches:
            _, stderr = watch.communicate(timeout=PATIENCE)
            assert watch.returncode == 0, stderr
    finally:
        for watch in watches:
            watch.kill()
    return {run.path.name: [0, 7] for run in preempted} | {run.path.name: [0, 4] for run in dead}


def preempt_and_kill(
    cluster: Cluster, sweep: Path, jobs: Mapping[str, RunFolder]
) -> tuple[list[RunFolder], list[RunFolder]]:
    """Let the jobs of one node be preempted, and the other node die; the first runs of these jobs and of those."""
    for job, run in jobs.items():
        wait_until((run.path / "here").exists, f"job {job} trains")
    nodes = {job: cluster.node(job) for job in jobs}
    place, dead = nodes[min(jobs)], nodes[max(jobs)]
    assert place != dead
    # A preempted job that came back there would begin its second run just before the node dies.
    cluster.ask("scontrol", "update", f"nodename={dead}", "state=DRAIN", "reason=dies")
    stopped = {job: run for job, run in jobs.items() if nodes[job] == place}
    doomed = [run for job, run in jobs.items() if nodes[job] == dead]
    cluster.ask("scontrol", "update", f"jobid={min(jobs)}", "comment=change")
    cluster.wait_until_saved()
    limit(cluster, LIMIT + 1)
    urgent = ["--partition=urgent", "--exclusive", f"--nodelist={place}", "--wrap=true", "--output=/dev/null"]
    wait_until(lambda: cluster.run(["sbatch", *urgent]).returncode == 0, "the urgent job is taken")
    limit(cluster, LIMIT)
    for job in stopped:
        wait_until(lambda job=job: "stopping:" in output_of(sweep.parents[1], job), f"job {job} is preempted")
    cluster.kill_controller()
    for job, run in stopped.items():
        calm(run)
        wait_until(
            lambda job=job: "stopped with checkpoints" in output_of(sweep.parents[1], job), f"job {job} has stopped"
        )
    cluster.start_controller()
    for job, run in stopped.items():
        wait_until(lambda run=run: len(began(run)) == 2, f"job {job} is back after its preemption")
    cluster.kill_node(dead)
    for run in doomed:
        calm(run)
        wait_until(lambda run=run: len(began(run)) == 2, f"{run.path.name} is back after its node has died")
    cluster.start_node(dead)
    return list(stopped.values()), doomed


def outlive_daemon(cluster: Cluster, sweep: Path, run: RunFolder) -> None:
    """Let the daemon of a node die while a run trains there: its job starts again elsewhere, and waits for it."""
    wait_until((run.path / "here").exists, f"{run.path.name} trains")
    job = jobs_of(sweep)[run.path.name]
    cluster.kill_slurmd(cluster.node(job))
    wait_until(lambda: output_of(sweep.parents[1], job).count("Loading pickle") == 2, f"job {job} starts again")
    assert run.result() is None
    calm(run)
    wait_until(run.result, f"{run.path.name} has finished where nobody watches it")


def lose_controller_again(cluster: Cluster, runs: Mapping[str, RunFolder]) -> None:
    """Let the controller be away for a moment while jobs end."""
    wait_until(lambda: sum(run.result() is not None for run in runs.values()) > 6, "most runs have finished")
    cluster.stop_controller()  # killed, it would forget which jobs have begun
    time.sleep(1)
    cluster.start_controller()


def calm(run: RunFolder) -> None:
    """Let a run go on, now and in every later try."""
    (run.path / "calm").touch()


def limit(cluster: Cluster, jobs: int) -> None:
    """Let a user have so many jobs in the queue; -1: any number."""
    cluster.ask("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={jobs}")


@contextmanager
def tight(cluster: Cluster) -> Iterator[None]:
    """Limit the jobs in the queue and in an array."""
    config = cluster.place / "slurm.conf"
    before = config.read_text()

    def restart(content: str) -> None:
        config.write_text(content)
        cluster.stop_controller()
        cluster.start_controller()
        cluster.ask("scancel", f"--user={submissions.this_user()}")  # what other tests have left

    limit(cluster, LIMIT)
    restart(re.sub(r"MaxArraySize=\d+", f"MaxArraySize={LIMIT}", before))
    try:
        yield
    finally:
        cluster.ask("scontrol", "update", "partitionname=main", "state=UP")
        restart(before)
        limit(cluster, -1)
        for node in cluster.ask(
            "sinfo", "--noheader", "--Node", "--partition=main", "--states=down", "--format=%N"
        ).split():
            cluster.start_node(node)


@contextmanager
def explained(cluster: Cluster, output: Path) -> Iterator[None]:
    """Print the state of everything if something is wrong."""
    try:
        yield
    except BaseException:
        print(cluster.run(["squeue", "--array", "--states=all"]).stdout, cluster.run(["sinfo"]).stdout)
        for path in (output / "sweeps").iterdir():
            print(cluster.headsweep("status", path.name, "--output", output).stdout)
        raise
