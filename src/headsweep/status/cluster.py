"""Questions to the cluster, which may be busy, down or absent: each is answered within seconds, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from headsweep.errors import UserError

PING_SECONDS = 4.0  # how long the controller is given to say that it is there
ANSWER_SECONDS = 10.0  # how long a busy cluster is given to answer a question
USUAL_LIMIT = 1001  # SLURM's default of MaxArraySize


def is_up() -> bool:
    """Does a controller answer? Other commands try again and again for ten seconds where none does."""
    return ask("scontrol", "ping", seconds=PING_SECONDS) is not None


def ask(*command: str, seconds: float = ANSWER_SECONDS) -> list[str] | None:
    """The lines that a command of SLURM answers; None if it cannot."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


@contextmanager
def outside_jobs() -> Iterator[None]:
    """Hide what SLURM has set in the environment of a job from the jobs that are submitted inside.

    They would inherit the place and the limits of this job's processes (SLURM_CPU_BIND, SLURM_MEM_PER_CPU), and take
    its restarts and the number of its array for theirs. SLURM_CONF says where the cluster is, and stays.
    """
    hidden = [name for name in os.environ if name.startswith(("SLURM_", "SLURMD_")) and name != "SLURM_CONF"]
    kept = {name: os.environ.pop(name) for name in hidden} if "SLURM_JOB_ID" in os.environ else {}
    try:
        yield
    finally:
        os.environ.update(kept)


def array_limit() -> int:
    """The most elements of an array.

    Raises:
        UserError: there is no cluster, or it does not answer.
    """
    if shutil.which("scontrol") is None:
        raise UserError("hydra/launcher=slurm: no `scontrol` here; want a login node of a SLURM cluster")
    config = ask("scontrol", "show", "config") if is_up() else None
    if config is None:
        raise UserError("hydra/launcher=slurm: the cluster does not answer; `scontrol ping` says whether it is up")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", "\n".join(config), re.MULTILINE)
    return int(found[1]) if found else USUAL_LIMIT
