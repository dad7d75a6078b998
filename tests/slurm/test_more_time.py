"""A run whose job timed out gets more time; SLURM's commands are scripts."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import Sbatch, asked, sweep_of

from commands import TINY_RUN
from composing import compose_run
from factories import hand_made
from headsweep.errors import Interrupted
from headsweep.launch.slurm.job import Job
from headsweep.launch.slurm.launcher import SlurmLauncher
from headsweep.launch.slurm.window import submit_some
from headsweep.plan.plan import make_plan
from headsweep.status import job_record, submissions
from headsweep.status.read import read_sweep


def times(sbatch: Sbatch) -> list[str]:
    """Of the arrays that were submitted, one after the other."""
    return [found.removeprefix("time=") for file in sbatch.files() for found in asked(file) if "time" in found]


def answer_jobs(sbatch: Sbatch, sweep: Path, *states: str) -> None:
    """Let the queue have the jobs of the last submission, in these states."""
    sbatch.write("scontrol", "echo ClusterName =")
    jobs = submissions.jobs(sweep)[-len(states) :]
    fields = zip(jobs, states, strict=True)
    lines = [
        f"{job.array}|{job.array}|{job.element[1:] or 'N/A'}|{state}|1|n1|1:00|{job.name}|None" for job, state in fields
    ]
    sbatch.write("squeue", "cat <<E\n" + "\n".join(lines) + "\nE")


def test_a_run_that_timed_out_gets_twice_the_time_within_the_limit_of_the_partition(sbatch, settings, runs, capsys):
    sweep = sweep_of(runs)
    sbatch.write("sinfo", "echo 'main*|10:00:00'; echo 'long|infinite'")
    submit_some(sweep, runs[:2], settings, {})
    for _ in range(3):
        answer_jobs(sbatch, sweep, "TIMEOUT", "TIMEOUT")
        submit_some(sweep, runs[:2], settings, {})
    assert times(sbatch) == ["240", "480", "600", "600"]
    lines = [line for line in capsys.readouterr().out.splitlines() if "timed out" in line]
    assert lines == [
        "2 runs timed out after 240 minutes and get 480 minutes",
        "2 runs timed out after 480 minutes and get 600 minutes (the limit of the partition)",
        "2 runs timed out after 600 minutes, and the partition allows no more",
    ]


def test_the_dry_run_shows_the_time_that_would_be_asked_for(sbatch, settings, tmp_path: Path):
    run = compose_run(*TINY_RUN, f"paths.output={tmp_path / 'out'}")
    plan = make_plan([run])
    for folder in plan.folders:
        hand_made(tmp_path / "out", folder.path.name)
    submit_some(plan.folder, plan.folders, settings, {})
    answer_jobs(sbatch, plan.folder, "TIMEOUT")
    shown = SlurmLauncher(replace(settings, dry_run=True)).dry_run(plan)
    assert shown is not None and "time=480" in asked(shown)


def test_only_runs_that_timed_out_get_more(sbatch, settings, runs, capsys):
    sweep = sweep_of(runs)
    submit_some(sweep, runs[:2], settings, {})
    answer_jobs(sbatch, sweep, "FAILED", "TIMEOUT")
    submit_some(sweep, runs[:3], settings, {})
    assert times(sbatch) == ["240", "240", "480"]
    assert [job.runs for job in submissions.jobs(sweep)[2:]] == [("gap1-0",), ("ga8-2",), ("ga1-1",)]
    assert "ga1-1  (time=480)" in capsys.readouterr().out


@pytest.mark.parametrize(("changes", "time"), [({"time": 300}, "300"), ({"time_factor": 1}, "240")])
def test_a_longer_time_of_the_user_and_no_factor_are_kept(sbatch, settings, runs, changes, time, capsys):
    sweep = sweep_of(runs)
    submit_some(sweep, runs[:1], settings, {})
    answer_jobs(sbatch, sweep, "TIMEOUT")
    submit_some(sweep, runs[:1], replace(settings, **changes), {})
    assert times(sbatch) == ["240", time]
    assert "timed out" not in capsys.readouterr().out


@pytest.mark.parametrize(("minutes", "restarts", "is_recorded"), [(239, 20, True), (100, 20, False), (239, 3, False)])
def test_a_job_that_ends_with_its_time_records_it_for_clusters_without_accounting(
    minutes: int, restarts: int, is_recorded: bool, sbatch, settings, runs, monkeypatch
):  # fmt: skip
    """One that is preempted before, or that may be requeued, has not run out of time."""
    sweep = sweep_of(runs)
    submit_some(sweep, runs[:1], settings, {})
    (job,) = submissions.jobs(sweep)
    clock = [0.0]

    def train(*_: object) -> None:
        clock[0] += 60 * minutes
        signal.raise_signal(signal.SIGUSR2)
        raise Interrupted(signal.SIGUSR2)

    monkeypatch.setattr("headsweep.launch.slurm.job.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(Job, "_train", train)
    environment = {"PROCID": "0", "RESTART_COUNT": str(restarts), "JOB_NAME": job.name, "JOB_ID": job.number}
    for name, value in environment.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    for _ in range(2):
        with pytest.raises(SystemExit):
            Job(sweep, (runs[0].path,), settings).work()
    found = job_record.read(job.record)
    assert found.ran_out_of_time is is_recorded and found.restarts == 1
    assert all(period.ended for period in found.periods)
    answer_jobs(sbatch, sweep, "RUNNING")
    (sweep / "plan.json").write_text(f'{{"runs": ["{runs[0].path.name}"]}}')
    assert read_sweep(sweep).runs[0].note == f"job {job.number} is running, 1 restart"
    sbatch.write("squeue", ":")
    submit_some(sweep, runs[:1], settings, {})
    assert times(sbatch) == ["240", "480" if is_recorded else "240"]


def test_a_record_that_is_damaged_counts_as_none(tmp_path: Path):
    path = tmp_path / "12_ran.json"
    path.write_text("{")
    assert job_record.read(path) == job_record.JobRecord()
