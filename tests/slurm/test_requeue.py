"""Whether the end of a job puts it back into the queue: its shell lines, with scripts in place of SLURM's commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from headsweep.launch.slurm.requeue import REFUSALS, REQUEUE, last_lines

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
def test_a_job_is_requeued_once_until_it_succeeds(code, states, refusals, requests, tmp_path: Path):
    answers = [state if isinstance(state, tuple) else ("0", state) for state in states]
    for number, (status, state) in enumerate(answers):
        (tmp_path / f"answer{number}").write_text(f"echo {state}\nexit {status}\n")
    count(tmp_path, "squeue", f'[ $n -lt {len(answers)} ] || n={len(answers) - 1}; . "{tmp_path}/answer$n"')
    count(tmp_path, "scontrol", f'echo "$@" >> {tmp_path}/requests; [ $n -ge {refusals} ]')
    count(tmp_path, "sleep", "")
    assert end(tmp_path, code, restarts=0) == code
    assert (tmp_path / "refilled").exists() == (code < 128), "only a job that has ended lets others follow"
    asked = tmp_path / "requests"
    assert (asked.read_text().splitlines() if asked.exists() else []) == ["requeue 7_1"] * requests


def test_a_job_that_was_requeued_often_enough_asks_nothing(tmp_path: Path):
    count(tmp_path, "squeue", "")
    assert end(tmp_path, REQUEUE, restarts=2) == REQUEUE
    assert not (tmp_path / "squeue.count").exists()


def count(place: Path, name: str, words: str) -> None:
    """Write a command whose shell lines find in $n how often it was called before."""
    calls = place / f"{name}.count"
    lines = ["#!/bin/bash", f"n=$(cat {calls} 2>/dev/null || echo 0)", f"echo $((n + 1)) > {calls}", words]
    (place / name).write_text("\n".join(lines) + "\n")
    (place / name).chmod(0o755)


def end(place: Path, code: int, restarts: int) -> int:
    """The exit code of a job of at most two requeues whose processes ended with `code`."""
    element = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    environment = {**os.environ, **element, "SLURM_RESTART_COUNT": str(restarts)}
    environment["PATH"] = os.pathsep.join([str(place), os.environ["PATH"]])
    script = "\n".join([f"(exit {code})", *last_lines(2, f"touch {place}/refilled")])
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, timeout=60).returncode
