"""Cells with different needs go into different arrays; sbatch is a script that keeps what it is given."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from scripted import Sbatch, asked, sweep_of

from commands import TINY_RUN
from composing import compose_run
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import UserError
from headsweep.launch.slurm.grouping import grouped
from headsweep.launch.slurm.launcher import SlurmLauncher, submit_again
from headsweep.launch.slurm.settings import record, submitted_with
from headsweep.launch.slurm.window import submit_some
from headsweep.plan.plan import make_plan
from headsweep.status import submissions, waiting

NEEDS = ["head=ga: memory=32GB time=480", "head=ga heads>4: gpus=2"]


@pytest.fixture
def settings(settings: SlurmConfig) -> SlurmConfig:
    """With needs."""
    return replace(settings, needs=NEEDS)


def test_each_array_asks_for_what_its_runs_need(sbatch: Sbatch, settings: SlurmConfig, runs, capsys):
    sweep = sweep_of(runs)
    submit_some(sweep, runs, settings, {})
    assert [asked(file) for file in sbatch.files()] == [
        ["array=0-1", "gpus-per-node=1", "time=240"],
        ["array=0-1", "gpus-per-node=1", "mem=32GB", "time=480"],
        ["array=0-1", "gpus-per-node=2", "mem=32GB", "time=480"],
    ]
    jobs = {job.number: job.runs for job in submissions.jobs(sweep)}
    assert list(jobs.values()) == [("gap1-0",), ("gap1-3",), ("ga1-1",), ("ga1-4",), ("ga8-2",), ("ga8-5",)]
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in printed] == [
        "gap1-0", "gap1-3", "ga1-1  (memory=32GB time=480)", "ga1-4  (memory=32GB time=480)",
        "ga8-2  (gpus=2 memory=32GB time=480)", "ga8-5  (gpus=2 memory=32GB time=480)",
    ]  # fmt: skip


def test_no_more_jobs_than_may_be_in_the_queue_are_submitted_whatever_their_needs(sbatch, settings, runs, capsys):
    """Runs of different needs share no job, so that four jobs of two runs are more than eight runs would be."""
    sweep = sweep_of(runs)
    submit_some(sweep, runs, replace(settings, runs_per_job=4, max_submitted=2), {})
    assert [job.runs for job in submissions.jobs(sweep)] == [("gap1-0", "gap1-3"), ("ga1-1", "ga1-4")]
    assert waiting.of_this_user(sweep) == ["ga8-2", "ga8-5"]


def test_arrays_of_different_needs_come_one_after_the_other_where_jobs_at_a_time_are_limited(sbatch, settings, runs):
    submit_some(sweep_of(runs), runs, replace(settings, max_parallel=1), {})
    first, second, third = sbatch.files()
    assert "--dependency" not in first
    assert "--dependency=afterany:" in second and "--dependency=afterany:" in third


def test_retry_submits_with_the_same_needs(sbatch: Sbatch, settings: SlurmConfig, runs):
    sbatch.write("scontrol", "echo ClusterName = lion")
    sweep = sweep_of(runs)
    record(sweep, settings)
    assert submitted_with(sweep).needs == NEEDS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headsweep.launch.slurm.launcher.check_frozen", lambda folder: None)
        submit_again(sweep, [runs[2], runs[0]])
    assert [asked(file)[:2] for file in sbatch.files()] == [
        ["gpus-per-node=2", "mem=32GB"],
        ["gpus-per-node=1", "time=240"],
    ]


def test_the_first_job_of_each_kind_is_checked_and_shown_before_anything_is_submitted(sbatch, settings, tmp_path):
    sbatch.write("scontrol", "echo ClusterName = lion")
    grid = [compose_run(*TINY_RUN, f"head={head}", f"paths.output={tmp_path / 'out'}") for head in ("gap", "ga")]
    plan, launcher = make_plan(grid), SlurmLauncher(settings)
    launcher.prepare(grid)
    launcher.accept(plan)
    assert [asked(file) for file in sbatch.files("asked")] == [
        ["gpus-per-node=1", "time=240"],
        ["gpus-per-node=1", "mem=32GB", "time=480"],
    ]
    shown = SlurmLauncher(replace(settings, dry_run=True)).dry_run(plan)
    assert shown is not None and asked(shown) == [
        "gpus-per-node=1", "time=240", "gpus-per-node=1", "mem=32GB", "time=480"
    ]  # fmt: skip
    assert re.search(r"--mem=32GB[^§]*# job 0: ga1-", shown)
    with pytest.raises(UserError, match=r"^hydra.launcher.needs='hed=ga: cpus=2': hed: unknown key"):
        SlurmLauncher(replace(settings, needs=["hed=ga: cpus=2"])).prepare(grid)
    assert sbatch.files() == []


def test_without_needs_there_is_one_group(settings: SlurmConfig, runs):
    (group,) = grouped(runs, replace(settings, needs=[]))
    assert group.runs == runs and group.special == ""
