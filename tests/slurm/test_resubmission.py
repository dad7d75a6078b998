"""What `retry` checks and uses before it submits to a cluster, and what a submission checks; nothing is submitted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from composing import compose_run
from factories import planned
from headsweep.config import PROJECT_ROOT
from headsweep.config.launchers import parse_launcher
from headsweep.config.slurm import SlurmConfig
from headsweep.errors import ConfigError, UserError
from headsweep.launch.slurm.launcher import SlurmLauncher, submit_again
from headsweep.launch.slurm.sbatch_errors import may_be_submitted
from headsweep.launch.slurm.settings import record, submitted_with
from headsweep.status import submissions


@pytest.fixture
def settings() -> SlurmConfig:
    found = parse_launcher(SlurmConfig, OmegaConf.load(PROJECT_ROOT / "conf" / "hydra" / "launcher" / "slurm.yaml"))
    assert isinstance(found, SlurmConfig)
    return found


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster that answers what it is asked with nothing, and notes each submission in a file."""
    place = tmp_path / "commands"
    place.mkdir()
    for name, words in {"scontrol": ":", "squeue": ":", "sbatch": f"echo $* >> {place}/submitted"}.items():
        (place / name).write_text(f"#!/bin/sh\n{words}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)
    return place / "submitted"


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


def test_a_late_answer_of_sbatch_may_be_a_submission():
    assert may_be_submitted("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    assert not may_be_submitted("sbatch: error: Batch job submission failed: Invalid qos specification")
