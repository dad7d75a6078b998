"""Why sbatch refuses a job, in the launcher's own keys: which value, and which ones the cluster would take."""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from headsweep.config.slurm import SlurmConfig
from headsweep.errors import UserError
from headsweep.status import cluster

# Before the reason, in what sbatch prints.
PREAMBLE = re.compile(r"^(sbatch: error: |sbatch: |allocation failure: |Batch job submission failed: )+")
UNKNOWN_OPTION = re.compile(r"unrecognized option '--([\w-]+)|Invalid --([\w-]+) specification")
KEYS = {"mem": "memory", "cpus-per-task": "cpus", "gpus-per-node": "gpus"}  # by options whose name is another


@dataclass(frozen=True)
class Refusal:
    """A kind of answer of sbatch."""

    sign: str  # in sbatch's words, of SLURM 20 to 24
    keys: tuple[str, ...]  # of the launcher, one of which is to be changed
    known: str = ""  # what the answer to `question` is, e.g. "partitions"
    question: tuple[str, ...] = ()  # a command that lists what the cluster would take, one a line


_PARTITIONS = ("sinfo", "--noheader", "--format=%R")
_FEATURES = ("sinfo", "--noheader", "--format=%f")
_LIMITS = ("sinfo", "--noheader", "--format=%R %l")
_NODES = ("sinfo", "--noheader", "--format=%R %D x %c CPUs %m MB %G")
_MINE = ("sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={getpass.getuser()}")
REFUSALS = (
    Refusal("partition name", ("partition",), "partitions", _PARTITIONS),
    Refusal("feature specification", ("constraint",), "features", _FEATURES),
    Refusal("qos specification", ("qos",), "yours", (*_MINE, "format=qos")),
    Refusal("account or account/partition", ("account", "partition"), "your accounts", (*_MINE, "format=account")),
    Refusal("time limit is invalid", ("time", "partition"), "limits", _LIMITS),
    Refusal("Node count specification", ("nodes", "partition")),
    Refusal("gres", ("gpus",), "nodes", _NODES),
    Refusal("processors requested", ("cpus",), "nodes", _NODES),
    Refusal("configuration is not available", ("gpus", "cpus", "memory", "nodes", "constraint"), "nodes", _NODES),
)
# Not of a value, but of the moment: all nodes are down, say. A job may wait for better times, and sbatch takes it.
PASSING = "configuration is not available"


def check(file: str, settings: SlurmConfig) -> None:
    """Ask whether sbatch would take a job, without submitting it; only what no waiting can mend is an answer.

    Args:
        file: what sbatch would be given.
        settings: what it was made of.

    Raises:
        UserError: it would not.
    """
    try:
        with cluster.outside_jobs():
            done = subprocess.run(
                ["sbatch", "--test-only"], input=file, capture_output=True, text=True, timeout=cluster.ANSWER_SECONDS
            )
    except (OSError, subprocess.TimeoutExpired):
        return  # then the submission itself will tell
    is_clear = _option(done.stderr, settings) or _kind(done.stderr)
    if done.returncode != 0 and is_clear and PASSING not in done.stderr:
        raise explained(done.stderr, settings)


def explained(words: str, settings: SlurmConfig) -> UserError:
    """What sbatch has said of a job, in one line."""
    reason = _reason(words)
    if option := _option(words, settings):
        return UserError(f"{_values([option], settings)}: sbatch: {reason}")
    kind = _kind(words)
    if kind is None:
        return UserError(f"sbatch refused the jobs: {reason}")
    told = f"; {kind.known}: {known}" if (known := _listed(kind.question)) else ""
    return UserError(f"{_values(kind.keys, settings)}: {reason}{told}")


def _kind(words: str) -> Refusal | None:
    return next((refusal for refusal in REFUSALS if refusal.sign in words), None)


def _reason(words: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in words.splitlines() if line.strip() and not line.startswith("Try ")]
    return PREAMBLE.sub("", lines[-1]) if lines else "it does not say why"


def _option(words: str, settings: SlurmConfig) -> str | None:
    """The key behind an option of sbatch that is named."""
    found = UNKNOWN_OPTION.search(words)
    option = (found[1] or found[2]) if found else next((name for name in settings.extra if name in words), None)
    if option is None or option in settings.extra:
        return option and f"extra.{option}"
    return KEYS.get(option, option)


def _values(keys: Sequence[str], settings: SlurmConfig) -> str:
    """The keys with their values: those that are set, if any is."""
    values = {key: getattr(settings, key, settings.extra.get(key.removeprefix("extra."))) for key in keys}
    given = {key: value for key, value in values.items() if value is not None} or {keys[0]: "null"}
    return ", ".join(f"hydra.launcher.{key}={value}" for key, value in given.items())


def _listed(question: Sequence[str]) -> str:
    """What the cluster answers, each word once and in its order."""
    words = ",".join(cluster.ask(*question) or []).split(",") if question else []
    return ", ".join(dict.fromkeys(word.strip() for word in words if word.strip() not in ("", "(null)")))
