"""Whether the end of a job puts it back into the queue: its shell lines, with scripts in place of SLURM's commands."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from factories import hand_made
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm.requeue import LOST_PEER, REFUSALS, REQUEUE, ask_for_requeue, forget_kills, last_lines
from headsweep.tracking.metrics_log import Entry

SILENT = ("1", "")  # the exit code of a command that no controller answers, and what it prints


@pytest.mark.parametrize(
    ("code", "states", "refusals", "requests"),
    [
        (REQUEUE, ["RUNNING"], 0, 1),  # after USR2
        (137, ["RUNNING"], 0, 1),  # killed
        (REQUEUE, [SILENT] * 5 + ["RUNNING"], 0, 1),  # the controller is away for a while
        (REQUEUE, ["RUNNING"], 3, 4),  # it is too busy
        (REQUEUE, ["RUNNING"], 99, REFUSALS),  # it does not requeue any job
        (137, ["COMPLETING"], 0, 0),  # cancelled
        (137, [SILENT, "COMPLETING"], 0, 0),
        (143, ["RUNNING"], 0, 0),  # ended by TERM
        (1, ["RUNNING"], 0, 0),  # the runs failed
        (0, ["RUNNING"], 0, 0),
    ],
)
def test_a_job_is_requeued_once_until_it_succeeds(code, states, refusals, requests, settings, tmp_path: Path):
    answers = [state if isinstance(state, tuple) else ("0", state) for state in states]
    for number, (status, state) in enumerate(answers):
        (tmp_path / f"answer{number}").write_text(f"echo {state}\nexit {status}\n")
    count(tmp_path, "squeue", f'[ $n -lt {len(answers)} ] || n={len(answers) - 1}; . "{tmp_path}/answer$n"')
    count(tmp_path, "scontrol", f'echo "$@" >> {tmp_path}/requests; [ $n -ge {refusals} ]')
    count(tmp_path, "sleep", "")
    assert end(settings, tmp_path, code, restarts=0) == code
    assert (tmp_path / "7_1_killed").exists() == (code == 137 and requests > 0), "SLURM has not ended it"
    assert (tmp_path / "refilled").exists() == (code < 128), "only a job that has ended lets others follow"
    asked = tmp_path / "requests"
    assert (asked.read_text().splitlines() if asked.exists() else []) == ["requeue 7_1"] * requests


def test_a_job_that_was_requeued_often_enough_asks_nothing(settings, tmp_path: Path):
    count(tmp_path, "squeue", "")
    assert end(settings, tmp_path, REQUEUE, restarts=2) == REQUEUE
    assert not (tmp_path / "squeue.count").exists()


@pytest.mark.parametrize(("nodes", "state", "requests"), [(1, "RUNNING", 0), (2, "RUNNING", 1), (2, "COMPLETING", 0)])
def test_processes_that_srun_ends_because_one_was_killed_start_again(nodes, state, requests, settings, tmp_path: Path):
    """Those that do not handle SIGTERM yet make up the exit code of srun, 143."""
    count(tmp_path, "squeue", f"echo {state}")
    count(tmp_path, "scontrol", f"echo >> {tmp_path}/requests")
    assert end(replace(settings, nodes=nodes, gpus=0, distributed=True), tmp_path, 143, restarts=0) == 143
    assert (tmp_path / "requests").exists() == bool(requests)


@pytest.mark.parametrize("code", [137, 139, LOST_PEER])
def test_a_job_whose_processes_are_killed_again_and_again_is_not_requeued_for_ever(
    code, settings, tmp_path: Path, monkeypatch
):
    """What SLURM kills for its memory does not fit the next time either; only progress is a reason to go on."""
    count(tmp_path, "squeue", "echo RUNNING")
    count(tmp_path, "scontrol", f"echo >> {tmp_path}/requests")
    run = hand_made(tmp_path, "a")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    for requests, epochs in enumerate((0, 0, 2, 2, 2), start=1):
        news: list[object] = []
        notify = forget_kills(tmp_path, [run], news.append)
        notify(run)
        for epoch in range(len(run.metrics_log.entries()), epochs):
            run.metrics_log.append(Entry(epoch + 1, epoch + 1, {}, {}))
            notify(run)
        assert news and set(news) == {run}
        assert end(settings, tmp_path, code, restarts=0) == code
        assert (tmp_path / "requests").read_text().count("\n") == min(requests, 4)
    assert end(settings, tmp_path, REQUEUE, restarts=0) == REQUEUE, "it was asked to stop"
    assert (tmp_path / "requests").read_text().count("\n") == 5


def test_a_job_that_was_stopped_is_requeued_whatever_else_happened_to_its_processes(
    settings, tmp_path: Path, monkeypatch
):
    """The exit code of srun is 1 if one of them was killed for lack of memory."""
    count(tmp_path, "squeue", "echo RUNNING")
    count(tmp_path, "scontrol", f"touch {tmp_path}/requests")
    assert end(settings, tmp_path, 1, restarts=0) == 1
    assert not (tmp_path / "requests").exists()
    for name, value in {"ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "1", "RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    ask_for_requeue(tmp_path)
    assert end(settings, tmp_path, 1, restarts=0) == 1 and not (tmp_path / "requests").exists(), "of another start"
    assert end(settings, tmp_path, 1, restarts=1) == REQUEUE and (tmp_path / "requests").exists()


def count(place: Path, name: str, words: str) -> None:
    """Write a command whose shell lines find in $n how often it was called before."""
    calls = place / f"{name}.count"
    lines = ["#!/bin/bash", f"n=$(cat {calls} 2>/dev/null || echo 0)", f"echo $((n + 1)) > {calls}", words]
    (place / name).write_text("\n".join(lines) + "\n")
    (place / name).chmod(0o755)


def end(settings: SlurmConfig, place: Path, code: int, restarts: int) -> int:
    """The exit code of a job of at most two requeues whose processes ended with `code`."""
    element = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    environment = {**os.environ, **element, "SLURM_RESTART_COUNT": str(restarts)}
    environment["PATH"] = os.pathsep.join([str(place), os.environ["PATH"]])
    script = "\n".join([f"(exit {code})", *last_lines(replace(settings, requeues=2), place, f"touch {place}/refilled")])
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, timeout=60).returncode
