"""Queries to the cluster, which may be busy, down or absent: each returns within seconds, with or without an answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from headsweep.errors import UserError

PING_SECONDS = 4.0  # timeout of the controller's answer to a ping
ANSWER_SECONDS = 10.0  # timeout of any other answer
TIMES = {"SLURM_TIME_FORMAT": "%s"}  # as Unix times, whatever the user prefers
USUAL_LIMIT = 1001  # SLURM's default of MaxArraySize


def is_up() -> bool:
    """Return whether a controller answers; where none does, other commands retry for ten seconds."""
    return ask("scontrol", "ping", seconds=PING_SECONDS) is not None


def ask(*command: str, seconds: float = ANSWER_SECONDS) -> list[str] | None:
    """Return the lines that a command of SLURM prints, with Unix times; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env={**os.environ, **TIMES})
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def this_job() -> str | None:
    """Return the number of the job in which this process runs; ARRAY_ELEMENT in an array; None outside of jobs.

    One element of an array has the number of the whole array.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


@contextmanager
def outside_jobs() -> Iterator[None]:
    """Remove the variables that SLURM sets in a job, so that jobs submitted inside do not inherit them.

    They would inherit the CPU binding and the limits of this job (SLURM_CPU_BIND, SLURM_MEM_PER_CPU), its restarts and
    its array number. SLURM_CONF, which locates the cluster, stays.
    """
    removed = [name for name in os.environ if name.startswith(("SLURM_", "SLURMD_")) and name != "SLURM_CONF"]
    kept = {name: os.environ.pop(name) for name in removed} if "SLURM_JOB_ID" in os.environ else {}
    try:
        yield
    finally:
        os.environ.update(kept)


def config() -> dict[str, str] | None:
    """Return the configuration of the cluster, key -> value; None if it does not answer."""
    lines = ask("scontrol", "show", "config") if is_up() else None
    if lines is None:
        return None
    pairs = (line.partition("=") for line in lines)
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def require_config() -> dict[str, str]:
    """As `config`.

    Raises:
        UserError: there is no cluster, or it does not answer.
    """
    if shutil.which("scontrol") is None:
        raise UserError("hydra/launcher=slurm: no `scontrol` here; run this on a login node of a SLURM cluster")
    found = config()
    if found is None:
        raise UserError("hydra/launcher=slurm: the cluster does not answer; `scontrol ping` shows whether it is up")
    return found


def array_limit(config: Mapping[str, str]) -> int:
    """Return the largest number of jobs in an array."""
    limit = config.get("MaxArraySize", "")
    return int(limit) if limit.isdecimal() else USUAL_LIMIT
