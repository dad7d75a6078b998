"""Why sbatch refuses a job: its own words, and the launcher's keys and values that they are about."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import UserError
from headsweep.status import cluster

# Before the reason, in what sbatch prints.
PREAMBLE = re.compile(r"^(sbatch: error: |sbatch: |allocation failure: |Batch job submission failed: )+")
UNKNOWN_OPTION = re.compile(r"unrecognized option '--([\w-]+)|Invalid --([\w-]+) specification")
OPTIONS = {"mem": "memory", "cpus-per-task": "cpus", "gpus-per-node": "gpus"}  # of sbatch, and the keys behind them
# Not about a value, but about the moment, e.g. when all nodes are down: a job may wait, and sbatch takes it.
PASSING = "configuration is not available"
LIMIT = "violates accounting/QOS policy"
# A part of a message of sbatch (SLURM 20 to 24), and the keys that it can be about.
KEYS = {
    "partition name": ("partition",),
    "feature specification": ("constraint",),
    "qos specification": ("qos",),
    "account or account/partition": ("account", "partition"),
    "time limit is invalid": ("time", "partition"),
    "Node count specification": ("nodes", "partition"),
    "gres": ("gpus",),
    "processors requested": ("cpus",),
    PASSING: ("gpus", "cpus", "memory", "nodes", "constraint"),
}


class SubmitLimit(UserError):  # noqa: N818 - it passes
    """A limit on the jobs that a user or an account may have in the queue, or one on their size, refuses a job."""


def check(file: str, settings: SlurmConfig) -> None:
    """Ask whether sbatch would take a job, without submitting it; what may pass by waiting is no answer.

    Args:
        file: what sbatch would be given.
        settings: the keys that it was made from.

    Raises:
        UserError: it would not.
    """
    try:
        with cluster.outside_jobs():
            done = subprocess.run(
                ["sbatch", "--test-only"], input=file, capture_output=True, text=True, timeout=cluster.ANSWER_SECONDS
            )
    except (OSError, subprocess.TimeoutExpired):
        return  # then the submission itself fails with the reason
    if done.returncode != 0 and PASSING not in done.stderr and _keys(done.stderr, settings):
        raise refused(done.stderr, settings)


def refused(output: str, settings: SlurmConfig) -> UserError:
    """Return the error for what sbatch has printed of a job that it does not take."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("Try ")]
    reason = PREAMBLE.sub("", lines[-1]) if lines else "refused without a reason"
    keys = _keys(output, settings)
    about = _values(keys, settings) if keys else "hydra/launcher=slurm"
    kind = SubmitLimit if LIMIT in output else UserError
    return kind(f"{about}: sbatch: {reason}; {_valid(keys)}")


def _valid(keys: Sequence[str]) -> str:
    """Return the values that the cluster takes, or what lists them."""
    names = cluster.ask("sinfo", "--noheader", "--format=%R") if keys == ("partition",) else None
    if names:
        return f"partitions: {', '.join(sorted(set(names)))}"
    return "`sinfo` and `sacctmgr show assoc` list what the cluster takes"


def may_be_submitted(output: str) -> bool:
    """Return whether sbatch, which has printed `output` and failed, may have submitted the job: the answer was late."""
    return "timed out" in output


def _keys(output: str, settings: SlurmConfig) -> Sequence[str]:
    """Return the keys that sbatch's output is about; none if it is about something else."""
    found = UNKNOWN_OPTION.search(output)
    option = (found[1] or found[2]) if found else next((name for name in settings.extra if name in output), None)
    if option is not None:
        return (f"extra.{option}",) if option in settings.extra else (OPTIONS.get(option, option),)
    return next((keys for part, keys in KEYS.items() if part in output), ())


def _values(keys: Sequence[str], settings: SlurmConfig) -> str:
    """Return the keys with their values: those that are set, if any is."""
    values = {key: getattr(settings, key, settings.extra.get(key.removeprefix("extra."))) for key in keys}
    given = {key: value for key, value in values.items() if value is not None} or {keys[0]: "null"}
    return ", ".join(f"hydra.launcher.{key}={value}" for key, value in given.items())
