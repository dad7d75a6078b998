"""What became of jobs, in words, with and without accounting; and `retry`, which submits only what is missing."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from click import unstyle
from cluster import Cluster, began, calm, has_ended, jobs_of, lingering, output_of, read, sabotage, sweep, wait_until

import programs
from comparing import differences
from factories import by_seed
from headsweep.status import accounting, queue
from headsweep.status import cluster as questions
from headsweep.status.job_state import JobState
from headsweep.status.render import show
from headsweep.status.submissions import Job

pytestmark = pytest.mark.slow
HOLD = "+hydra.launcher.extra.hold=true"


@pytest.fixture(params=["cluster", "forgetful"])
def either(request: pytest.FixtureRequest) -> Cluster:
    """One with accounting, then one without."""
    return request.getfixturevalue(request.param)


def test_pending_jobs_have_a_reason_and_cancelled_jobs_are_lost(either: Cluster, tmp_path: Path):
    """Held; cancelled by hand before it began, which a cluster forgets; and waiting for a partition that is down."""
    jobs = submit(either, tmp_path, "seed=0,1,2,3", "hydra.launcher.partition=urgent", HOLD)
    either.ask("scontrol", "update", "partitionname=urgent", "state=DOWN")
    either.ask("scancel", jobs[1])
    either.ask("scontrol", "release", jobs[2])
    wait_until(lambda: "PartitionDown" in (reported := words(either, tmp_path))[2] and reported[1].startswith("lost"))
    reported = words(either, tmp_path)
    assert reported[0] == f"queued  job {jobs[0]} is pending: JobHeldUser"
    assert reported[1] == f"lost  job {jobs[1]} is unknown to the cluster; `headsweep retry` submits the run again"
    assert reported[2] == f"queued  job {jobs[2]} is pending: PartitionDown"
    again = either.headsweep("retry", "--output", tmp_path)
    assert again.returncode == 0 and again.stdout.startswith("1 of 4 runs of "), again.stdout + again.stderr
    cancelled = either.headsweep("cancel", "--output", tmp_path)
    assert cancelled.returncode == 0, cancelled.stderr
    wait_until(lambda: all(word.startswith("lost  ") for word in words(either, tmp_path).values()))
    either.ask("scontrol", "update", "partitionname=urgent", "state=UP")


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
    assert again.returncode == 0 and again.stdout.startswith("3 of 3 runs of "), again.stdout + again.stderr
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
    done = forgetful.train_without_torch("duration='4 epochs'", "tracking=none", "seed=1", f"paths.output={tmp_path}")
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
        and read(path / "cmdline").startswith("\0".join(programs.relay()).encode())
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


def test_accounting_remembers_what_the_queue_has_forgotten(cluster: Cluster, tmp_path: Path, monkeypatch):
    """The queue forgets after five minutes, which are not waited for: its accounting is asked at once."""
    jobs = submit(cluster, tmp_path, "seed=0,1,2,3", HOLD)
    monkeypatch.setenv("SLURM_CONF", str(cluster.place / "slurm.conf"))
    array = jobs[0].partition("_")[0]
    cluster.ask("scontrol", "release", jobs[2])
    wait_until(lambda: cluster.state(jobs[2]) == "RUNNING")
    cluster.ask("scancel", array)
    wait_until(lambda: all(job in ended(array) for job in jobs.values()))
    reported = ended(array)
    assert str(reported[jobs[0]]).startswith(f"job {jobs[0]} ended: CANCELLED (by 0); `headsweep retry`")
    assert str(reported[jobs[2]]).startswith(f"job {jobs[2]} ended: CANCELLED (by 0")


def ended(array: str) -> dict[str, JobState]:
    """What the accounting knows of the jobs of an array that are over."""
    return {state.job: state for state in accounting.ended([array]) if not state.is_active}


def submit(cluster: Cluster, output: Path, *arguments: str) -> dict[int, str]:
    """Seed -> job."""
    short = ["duration='4 epochs'", "hydra.launcher.threads=1", "tracking=none"]
    answer = cluster.train_without_torch(*short, *arguments, f"paths.output={output}")
    assert answer.returncode == 0, answer.stderr
    jobs = jobs_of(sweep(output))
    return {seed: jobs[folder.path.name] for seed, folder in by_seed(output).items()}


def release(cluster: Cluster, jobs: Mapping[object, str]) -> None:
    """Let held jobs begin."""
    cluster.ask("scontrol", "release", *{job.partition("_")[0] for job in jobs.values()})


def words(cluster: Cluster, output: Path) -> dict[int, str]:
    """Seed -> what `headsweep status` shows of a run: its state and the note behind its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.place / "slurm.conf"))
        lines = unstyle(show("latest", output)).splitlines()
    table = [line.split(None, 6) for line in lines[lines.index("") + 2 :]]
    seeds = {folder.path.name: seed for seed, folder in by_seed(output).items()}
    return {seeds[row[0]]: f"{row[1]}  {row[6] if len(row) > 6 else ''}" for row in table}
