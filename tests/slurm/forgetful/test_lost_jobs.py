"""What became of jobs, in words, without accounting; and `retry`, which submits only what is missing."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from cluster import (
    Cluster,
    began,
    calm,
    has_ended,
    jobs_of,
    lingering,
    output_of,
    read,
    sabotage,
    sweep,
    wait_until,
    warm_python,
)
from jobs import HOLD, check_pending, submit, words

from comparing import differences
from factories import by_seed
from headsweep.status import cluster as questions
from headsweep.status import queue
from headsweep.status.submissions import Job

pytestmark = pytest.mark.slow


def test_pending_jobs_have_a_reason_and_cancelled_jobs_are_lost(forgetful: Cluster, tmp_path: Path):
    check_pending(forgetful, tmp_path)


def test_a_job_without_requeues_is_lost_and_retry_goes_on(forgetful: Cluster, undisturbed: Path, tmp_path: Path):
    """Three fates of three running jobs that may not be requeued: asked to stop, its node dies, cancelled."""
    jobs = submit(forgetful, tmp_path, "seed=0,1,2", "hydra.launcher.requeues=0", "hydra.launcher.cpus=3", HOLD)
    sabotage(tmp_path)
    runs = by_seed(tmp_path)
    release(forgetful, jobs)
    lingering(runs, [0, 1, 2])
    status = forgetful.headsweep("status", "latest", "--output", tmp_path).stdout
    assert f"job {jobs[0]} on {forgetful.node(jobs[0])}" in status
    forgetful.send_usr2(jobs[0])
    wait_until(lambda: "stopping:" in output_of(tmp_path, jobs[0]))
    calm(runs, [0])
    wait_until(lambda: forgetful.state(jobs[0]) == "FAILED")
    assert "requeued 0 times already; hydra.launcher.requeues=0 allows no more" in output_of(tmp_path, jobs[0])
    node = forgetful.node(jobs[1])
    forgetful.kill_node(node)
    forgetful.start_node(node)
    cancelled = forgetful.headsweep("cancel", "--output", tmp_path)
    assert cancelled.stdout == f"{sweep(tmp_path).name}: cancelled job {jobs[2]}\n"
    wait_until(lambda: "stopping:" in output_of(tmp_path, jobs[2]))
    calm(runs, [1, 2])
    wait_until(lambda: forgetful.state(jobs[2]) == "CANCELLED")
    reported = words(forgetful, tmp_path)
    for seed, state in enumerate(("FAILED", "NODE_FAIL", "CANCELLED")):
        assert reported[seed].startswith(f"lost  job {jobs[seed]} ended: {state}"), reported

    again = forgetful.headsweep("retry", "--output", tmp_path)
    assert again.returncode == 0 and "3 of 3 runs of " in again.stdout, again.stdout + again.stderr
    release(forgetful, jobs_of(sweep(tmp_path)))
    watch = forgetful.headsweep("watch", "--output", tmp_path)
    assert watch.returncode == 0, watch.stderr
    assert [began(runs[seed]) for seed in (0, 1, 2)] == [[0, 7], [0, 4], [0, 7]]
    for seed, folder in runs.items():
        assert differences(folder, by_seed(undisturbed)[seed]) == []


def test_the_element_with_the_number_of_its_array_goes_back_alone(
    forgetful: Cluster, undisturbed: Path, tmp_path: Path
):
    """The first element was cancelled; the last, which has the array's own number, is killed and queued again."""
    jobs = submit(forgetful, tmp_path, "seed=0,1", "hydra.launcher.cpus=2", HOLD)
    sabotage(tmp_path)
    runs = by_seed(tmp_path)
    forgetful.ask("scancel", jobs[0])
    release(forgetful, jobs)
    lingering(runs, [1])
    array = jobs[1].partition("_")[0]
    assert forgetful.ask("squeue", "--noheader", "--format=%A", f"--jobs={jobs[1]}") == array
    os.kill(job_process(array), signal.SIGKILL)
    wait_until(lambda: has_ended(int((runs[1].path / "here").read_text())))  # or the run would be trained further
    calm(runs, [0, 1])
    wait_until(lambda: began(runs[1]) == [0, 4])  # for a moment after its death, the job is not in the queue
    watch = forgetful.headsweep("watch", "--output", tmp_path)
    assert watch.returncode == 1 and "it never began" in watch.stderr, watch.stderr
    assert not (runs[0].path / "began").exists()
    assert differences(runs[1], by_seed(undisturbed)[1]) == []
    done = forgetful.train_without_torch("duration='2 epochs'", "tracking=none", "seed=1", f"paths.output={tmp_path}")
    assert done.returncode == 0, "of what was asked, all is done"


def test_what_a_job_printed_that_never_came_to_its_run_is_shown(forgetful: Cluster, tmp_path: Path):
    python = "hydra.launcher.python=/nowhere/python"
    (job,) = submit(forgetful, tmp_path, "seed=0", "hydra.launcher.requeues=0", python).values()
    watch = forgetful.headsweep("watch", "--output", tmp_path)
    (log,) = sweep(tmp_path).glob(f"slurm/jobs/*/{job}_0_log.out")
    assert watch.returncode == 1 and f"it never began  ({log})" in watch.stderr.replace("\n", ""), watch.stderr
    logs = forgetful.headsweep("logs", "--output", tmp_path, by_seed(tmp_path)[0].path.name)
    assert "/nowhere/python" in logs.stdout


def job_process(job: str) -> int:
    """The Python process that SLURM has started for a job."""
    (found,) = (
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if f"SLURM_JOB_ID={job}".encode() in read(path / "environ").split(b"\0")
        and read(path / "cmdline").startswith("\0".join(warm_python().split()).encode())
    )
    return found


def test_a_cluster_that_is_down_is_reported_in_one_line_and_changes_no_state(forgetful: Cluster, tmp_path: Path):
    """Its configuration names a port where nothing listens."""
    output, down = tmp_path / "outputs", Cluster(tmp_path)
    (job,) = submit(forgetful, output, "seed=0", HOLD).values()
    config = (forgetful.place / "slurm.conf").read_text()
    (tmp_path / "slurm.conf").write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", config))
    assert words(down, output) == {0: f"queued  job {job} is unreachable: the cluster does not answer"}
    silent = "headsweep: hydra/launcher=slurm: the cluster does not answer; `scontrol ping` shows whether it is up\n"
    where = ["--output", output]
    for answer, reported in (
        (down.train_without_torch(f"paths.output={output}"), silent),
        (down.headsweep("retry", *where), silent),
        (
            down.headsweep("cancel", *where),
            f"headsweep: the cluster does not answer; job {job} of {sweep(output).name} may still run: "
            "try again later\n",
        ),
    ):
        assert (answer.returncode, answer.stdout, answer.stderr) == (2, "", reported)
    assert forgetful.state(job) == "PENDING"
    forgetful.ask("scancel", job)


def test_a_cluster_that_never_answers_is_waited_for_once(forgetful: Cluster, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    monkeypatch.setattr(questions, "PING_SECONDS", 0.5)
    config = (forgetful.place / "slurm.conf").read_text()
    asked = []
    with socket.create_server(("", 0)) as silent:
        port = f"SlurmctldPort={silent.getsockname()[1]}"
        (tmp_path / "slurm.conf").write_text(re.sub(r"SlurmctldPort=\d+", port, config))
        ask = questions.ask
        monkeypatch.setattr(questions, "ask", lambda *words, **more: asked.append(words) or ask(*words, **more))
        job = Job(tmp_path / "sweep", "a1", "12", "_3", ("run",), submitted=1.0)
        assert queue.states_of([job])[job].is_active
    assert asked == [("scontrol", "ping")]


def release(cluster: Cluster, jobs: Mapping[object, str]) -> None:
    """Let held jobs begin."""
    cluster.ask("scontrol", "release", *{job.partition("_")[0] for job in jobs.values()})
