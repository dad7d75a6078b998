"""What `retry` checks and uses before it submits to a cluster, and what a submission checks; nothing is submitted."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from commands import TINY_RUN
from composing import compose_run
from factories import planned
from headsweep.config.launcher.slurm import Check
from headsweep.errors import ConfigError, UserError
from headsweep.launch.follow import _Refill
from headsweep.launch.local.pool import LocalPool
from headsweep.launch.run_sweep import run_sweep
from headsweep.launch.slurm.launcher import SlurmLauncher, submit_again
from headsweep.launch.slurm.sbatch_errors import may_be_submitted
from headsweep.launch.slurm.settings import record, submitted_with
from headsweep.status import queue, submissions, waiting
from headsweep.status.views import RunView, SweepView
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from scripts import Scripts


@pytest.fixture
def controller(scripts: Scripts) -> Path:
    """A cluster that answers what it is asked with nothing, and notes each submission in a file."""
    submitted = scripts.place / "submitted"
    for name, words in {"scontrol": ":", "squeue": ":", "sbatch": f"echo $* >> {submitted}"}.items():
        scripts.write(name, words)
    return submitted


def test_a_run_without_its_frozen_configuration_is_not_submitted_again(controller: Path, settings, tmp_path: Path):
    run = planned(tmp_path / "outputs")
    sweep = run.output.sweeps / run.record().sweep
    record(sweep, settings)
    run.config.unlink()
    with pytest.raises(UserError, match="has no frozen configuration any more; give the sweep's command again"):
        submit_again(sweep, [run])
    assert not controller.exists()


def test_a_user_submits_again_as_before_whatever_others_did_since(settings, tmp_path: Path, monkeypatch):
    record(tmp_path, replace(settings, partition="mine"))
    monkeypatch.setattr(submissions, "this_user", lambda: "bob")
    assert submitted_with(tmp_path).partition == "mine", "those of another user, where there are no others"
    record(tmp_path, replace(settings, partition="other"))
    assert submitted_with(tmp_path).partition == "other"
    monkeypatch.undo()
    assert submitted_with(tmp_path).partition == "mine"


@pytest.mark.parametrize("name", ["50%A", "a\\b"])
def test_a_path_that_sbatch_would_expand_is_refused(name: str, controller: Path, settings, tmp_path: Path):
    run = compose_run()
    run = replace(run, paths=replace(run.paths, output=str(tmp_path / name)))
    with pytest.raises(ConfigError, match=r"paths.output=.*: expected a path without % and \\, which sbatch replaces"):
        SlurmLauncher(settings).prepare([run])


def test_what_a_cluster_refuses_is_reported_before_models_are_built(controller: Path, settings, tmp_path, monkeypatch):
    refusal = (
        "echo sbatch: error: invalid partition specified: x >&2; echo sbatch: Invalid partition name specified >&2"
    )
    (controller.parent / "sbatch").write_text(f"#!/bin/sh\n{refusal}; exit 1\n")
    monkeypatch.setattr(LocalPool, "check", lambda pool, runs: pytest.fail("models are built"))
    run = compose_run(*TINY_RUN, f"paths.output={tmp_path / 'outputs'}")
    with pytest.raises(UserError, match=r"^hydra.launcher.partition=x: sbatch: Invalid partition name specified"):
        run_sweep([run], SlurmLauncher(replace(settings, partition="x")))
    assert not (tmp_path / "outputs").exists()


def test_models_are_built_in_the_jobs_alone_where_login_nodes_forbid_it(sbatch, settings, tmp_path, monkeypatch):
    sbatch.write("scontrol", "echo ClusterName = lion")
    monkeypatch.setattr(LocalPool, "check", lambda pool, runs: pytest.fail("models are built"))
    run = compose_run(*TINY_RUN, f"paths.output={tmp_path / 'outputs'}")
    plan = run_sweep([run], SlurmLauncher(replace(settings, check=Check.job)))
    assert len(sbatch.files()) == 1 and plan.folders[0].record().cost == {}, "counted by its job"


def test_retry_submits_what_a_stopped_command_has_planned(sbatch, settings, tmp_path: Path, monkeypatch):
    """It trains on this machine what no settings are recorded for."""
    sbatch.write("scontrol", "echo ClusterName = lion")
    run = compose_run(*TINY_RUN, f"paths.output={tmp_path / 'outputs'}")
    monkeypatch.setattr("headsweep.plan.code_of_runs.code_change", lambda missing: sys.exit(130))
    with pytest.raises(SystemExit):
        run_sweep([run], SlurmLauncher(replace(settings, check=Check.job)))
    (sweep,) = OutputFolder(tmp_path / "outputs").planned_sweeps()
    assert list(queue.by_sweep(SweepFolder(sweep).runs())) == [sweep]


@pytest.mark.parametrize("first_fails", [False, True])
def test_watch_goes_on_when_no_jobs_can_be_submitted_now(first_fails: bool, tmp_path: Path, capsys):
    """It tries again after each change of the sweep, and now and then."""
    calls = []

    def refill(sweep: Path) -> None:
        calls.append(sweep)
        if first_fails:
            raise UserError("the cluster does not answer")

    start_more = _Refill(tmp_path, refill)
    view = SweepView(tmp_path, (RunView(RunFolder(tmp_path / "a"), "a"),), 0)
    start_more(view)
    assert calls == [], "no run waits"
    waiting.record(tmp_path, [waiting.Batch(["a"])])
    for shown in (view, view, replace(view, runs=())):
        start_more(shown)
    assert calls == [tmp_path, tmp_path]
    message = "headsweep: the cluster does not answer; tried again every 60 s\n"
    assert capsys.readouterr().err == message * first_fails


def test_a_late_answer_of_sbatch_may_be_a_submission():
    assert may_be_submitted("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    assert not may_be_submitted("sbatch: error: Batch job submission failed: Invalid qos specification")
