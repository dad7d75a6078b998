"""What the launcher `slurm` is told: the keys of `conf/hydra/launcher/slurm.yaml`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headsweep.errors import ConfigError

MEMORY = re.compile(r"\d+([KMGT]B?)?", re.IGNORECASE)  # of sbatch
SHORTEST = 5  # minutes; below, a job is mostly its start and the warning before its end
WANT_OPTIONS = "want options of sbatch and their values, e.g. {mail-type: END}"
WANT_LINES = 'want a list of shell lines, e.g. ["module load cuda"]'
WANT_MINUTES = "want minutes, a number above 0, or null"
# What a user needs to hear of a value of the wrong type, by the key or by the type of its field.
WANTED = {
    "time": f"want minutes, a whole number of at least {SHORTEST}",
    "timeout": WANT_MINUTES,
    "slots": "want a whole number, or null; auto is of hydra/launcher=local, which measures where the runs train",
    "int": "want a whole number",
    "int | None": "want a whole number, or null",
    "bool": "want true or false",
    "str | None": "want a text, or null",
    "list[str]": WANT_LINES,
    "dict[str, Any]": WANT_OPTIONS,
    "Projection": "want login or jobs",
}


class Projection(Enum):
    """Who carries metrics to MLflow."""

    login = "login"  # `headsweep watch` or `headsweep sync`, on the machine where they are given
    jobs = "jobs"  # each job, as it trains; needs a tracking server


@dataclass
class SlurmConfig:
    """A sweep's jobs: what each asks of the cluster, and how many runs it works through."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    time: int  # minutes that a job may take; a run that is not done by then goes on in the same job, requeued
    nodes: int  # of a job; several want distributed=true
    gpus: int  # of a job, on each node
    cpus: int  # of a job, on each node
    memory: str | None  # of a job, on each node, e.g. 16GB; None: the partition's default
    setup: list[str]  # shell lines before Python starts, e.g. "module load cuda"
    extra: dict[str, Any]  # further options of sbatch, e.g. {mail-type: END}
    python: str | None  # the interpreter on the nodes; None: this one
    max_parallel: int | None  # jobs at a time; None: as many as the cluster lets run
    runs_per_job: int  # runs that one job works through
    distributed: bool  # a job trains one run after the other, each over all its GPUs; else one run a GPU
    slots: int | None  # runs at a time within a job; None: one per GPU, or one
    threads: int | None  # CPU threads of a run; None: cpus divided by the slots
    warning: int  # seconds before the end of its time at which a job is told to write its checkpoints
    requeues: int  # how often a job may be put back into the queue, for whatever reason
    attempts: int | None  # tries of a run that fails; None: no end
    timeout: float | None  # minutes without progress after which a run counts as hanging; None: never
    mlflow: Projection
    wait: bool  # block until the sweep has ended, and print its table
    dry_run: bool  # print what would be given to sbatch

    def __post_init__(self) -> None:
        for key, least in (
            ("time", SHORTEST),
            ("nodes", 1),
            ("gpus", 0),
            ("cpus", 1),
            ("runs_per_job", 1),
            ("warning", 10),
        ):
            self._check_least(key, least)
        for key in ("max_parallel", "slots", "threads", "attempts"):
            self._check_least(key, 1)
        self._check_least("requeues", 0)
        if self.nodes > 1 and not self.distributed:
            raise _wrong("nodes", self.nodes, "want 1, or hydra.launcher.distributed=true for runs over several nodes")
        if self.distributed and self.slots is not None:
            raise _wrong(
                "slots", self.slots, "want null with hydra.launcher.distributed=true: a job trains one at a time"
            )
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise _wrong("timeout", self.timeout, WANT_MINUTES)
        if not all(isinstance(line, str) for line in self.setup):
            raise _wrong("setup", self.setup, WANT_LINES)
        for option, value in self.extra.items():
            if value is not True and (isinstance(value, bool) or not isinstance(value, str | int | float)):
                raise _wrong(f"extra.{option}", value, "want a text, a number, or true for an option without a value")
        if self.memory is not None and not MEMORY.fullmatch(self.memory):
            raise _wrong("memory", self.memory, "want a whole number and a unit, e.g. 16GB, or null")
        if self.warning >= 60 * self.time:
            raise _wrong("warning", self.warning, f"want fewer seconds than hydra.launcher.time={self.time} minutes")

    @property
    def tasks(self) -> int:
        """Processes of a job on each node: where its runs are distributed, one for each GPU."""
        return max(1, self.gpus) if self.distributed else 1

    @property
    def ranks(self) -> int:
        """Processes that train a run together."""
        return self.nodes * self.tasks

    def _check_least(self, key: str, least: int) -> None:
        got = getattr(self, key)
        if got is not None and got < least:
            raise _wrong(key, got, f"want a whole number of at least {least}")


def parse_slurm(settings: Mapping[str, Any]) -> SlurmConfig:
    """The launcher's keys, typed and checked.

    Raises:
        ConfigError: a value has the wrong type or contradicts another.
    """
    typed = OmegaConf.structured(SlurmConfig)
    for key, value in settings.items():
        field = SlurmConfig.__dataclass_fields__.get(key)
        if field is None:
            raise _wrong(key, value, f"unknown; known: {', '.join(sorted(SlurmConfig.__dataclass_fields__))}")
        try:
            typed[key] = value
        except OmegaConfBaseException as error:
            raise _wrong(key, value, WANTED.get(key) or WANTED[str(field.type)]) from error
    return OmegaConf.to_object(typed)  # type: ignore[return-value]


def _wrong(key: str, got: object, want: str) -> ConfigError:
    return ConfigError(f"hydra.launcher.{key}", "null" if got is None else got, want)
