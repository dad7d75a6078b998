"""The keys of the launcher `slurm` (`conf/hydra/launcher/slurm.yaml`)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from headsweep.config.checks import is_one_line
from headsweep.config.launcher.launchers import EXPECTED, check_least, check_threads, check_timeout, wrong
from headsweep.config.launcher.needs import FORM, read_need
from headsweep.errors import ConfigError

MEMORY = re.compile(r"[0-9]+[KMGT]B?|0", re.IGNORECASE)  # of sbatch, but for MB without a unit; 0: all of a node
SHORTEST = 5  # minutes; below, a job is mostly its start and the warning before its end
OPTIONS = "expected options of sbatch and their values, e.g. {mail-type: END}"
OWN_OPTIONS = ("array", "error", "job-name", "output")
SLOTS = "expected an integer or null; auto is for hydra/launcher=local, which measures where the runs train"
MOUNTS = "expected absolute paths, each as PATH or OUTSIDE:INSIDE, e.g. [/data]"
NEEDS = f"{FORM}, in a list"
RECORDED = "expected a list of memory, time or both, e.g. [memory,time]"
LINES = 'expected a list of shell lines, e.g. ["module load cuda"]'


def _check_option(option: str, value: object) -> None:
    """Refuse a further option of sbatch that headsweep sets itself, or whose value sbatch cannot take."""
    key = f"extra.{option}"
    if option.replace("_", "-") in OWN_OPTIONS:
        raise wrong(key, value, "expected another option: headsweep finds its jobs by this one")
    if value is not True and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        raise wrong(key, value, "expected a text, a number, or true for an option without a value")
    if not is_one_line(f"{option}{value}"):
        raise wrong(key, value, "expected one line, without control characters")


def mebibytes(memory: str) -> int:
    """Return the MiB of an amount of memory as sbatch reads it: in MiB unless it has another unit."""
    found = re.match(r"([0-9]+)([KMGT]?)", memory.upper())
    assert found is not None
    return math.ceil(int(found[1]) * 1024.0 ** ("KMGT".index(found[2] or "M") - 1))


class Projection(Enum):
    """Which process copies metrics to MLflow."""

    login = "login"  # `headsweep watch` or `headsweep sync`, on the machine where they are given
    jobs = "jobs"  # each job, as it trains; needs a tracking server


class Check(Enum):
    """Which process first builds the models of new runs, to see whether they can be and what they cost."""

    login = "login"  # the one that submits, before it does
    job = "job"  # the job of each run


class ContainerRuntime(Enum):
    """What starts containers in jobs."""

    apptainer = "apptainer"
    pyxis = "pyxis"  # the plugin of SLURM for enroot: srun --container-image


@dataclass
class SlurmConfig:
    """A sweep's jobs: what each asks of the cluster, and how many runs it works through."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    # minutes that a job may take; a run that is not done by then goes on in the same job, requeued
    time: int = field(metadata={EXPECTED: f"expected minutes, an integer >= {SHORTEST}"})
    nodes: int  # of a job; several need distributed=true
    gpus: int  # of a job, on each node
    cpus: int  # of a job, on each node
    memory: str | None  # of a job, on each node, e.g. 16GB; None: the partition's default
    time_factor: int  # after a time-out, the next job of a run gets so many times the time
    needs: list[str] = field(metadata={EXPECTED: NEEDS})  # resources of single cells, see `needs.read_need`
    # memory, time or both: where a run of equal cost has finished, jobs ask for what it used and a margin
    from_records: list[str] = field(metadata={EXPECTED: RECORDED})
    setup: list[str] = field(metadata={EXPECTED: LINES})  # shell lines before Python starts
    extra: dict[str, Any] = field(metadata={EXPECTED: OPTIONS})  # further options of sbatch, e.g. {mail-type: END}
    python: str | None  # the interpreter on the nodes; None: this one
    container: str | None  # image in which the processes of a job run; None: none
    container_runtime: ContainerRuntime = field(metadata={EXPECTED: "expected apptainer or pyxis"})
    container_mounts: list[str] = field(metadata={EXPECTED: MOUNTS})  # beside the output folder, which is there always
    max_parallel: int | None  # jobs at a time; None: as many as the cluster lets run
    max_submitted: int | None  # jobs in the queue at a time, pending or running; None: as many as the cluster takes
    runs_per_job: int  # runs that one job works through
    distributed: bool  # a job trains one run after the other, each over all its GPUs; else one run a GPU
    slots: int | None = field(metadata={EXPECTED: SLOTS})  # runs at a time in a job; None: one per GPU, or one
    threads: int | None  # CPU threads of a run; None: cpus divided by the slots
    warning: int  # seconds before the end of its time at which a job writes its checkpoints
    requeues: int  # how often a job may be put back into the queue, for whatever reason
    attempts: int | None  # tries of a run that fails; None: no limit
    timeout: float | None  # minutes without progress after which a run counts as hanging; None: never
    check: Check = field(metadata={EXPECTED: "expected login or job"})
    mlflow: Projection = field(metadata={EXPECTED: "expected login or jobs"})
    wait: bool  # block until the sweep has ended, and print its table
    dry_run: bool  # print what would be given to sbatch

    def __post_init__(self) -> None:
        for key, least in (
            ("time", SHORTEST),
            ("nodes", 1),
            ("gpus", 0),
            ("cpus", 1),
            ("time_factor", 1),
            ("runs_per_job", 1),
            ("warning", 10),
        ):
            check_least(key, getattr(self, key), least)
        for key in ("max_parallel", "max_submitted", "slots", "threads", "attempts"):
            check_least(key, getattr(self, key), 1)
        check_least("requeues", self.requeues, 0)
        check_threads(self.threads)
        if self.nodes > 1 and not self.distributed:
            raise wrong(
                "nodes", self.nodes, "expected 1 unless hydra.launcher.distributed=true, for runs over several nodes"
            )
        if self.distributed and self.slots is not None:
            raise wrong(
                "slots",
                self.slots,
                "expected null with hydra.launcher.distributed=true, where a job trains one run at a time",
            )
        check_timeout(self.timeout)
        if not all(isinstance(line, str) for line in self.setup):
            raise wrong("setup", self.setup, LINES)
        for option, value in self.extra.items():
            _check_option(option, value)
        self._check_container()
        if self.memory is not None and not MEMORY.fullmatch(self.memory):
            raise wrong("memory", self.memory, "expected an integer and a unit, e.g. 16GB, or null")
        if self.warning >= 60 * self.time:
            raise wrong("warning", self.warning, f"expected fewer seconds than hydra.launcher.time={self.time} minutes")
        if not {"memory", "time"}.issuperset(self.from_records):
            raise wrong("from_records", self.from_records, RECORDED)
        for text in self.needs:
            self._check_need(text)

    def _check_need(self, text: str) -> None:
        try:
            replace(self, needs=[], **read_need(text).resources)  # type: ignore[arg-type]
        except ConfigError as error:
            key = error.key.removeprefix("hydra.launcher.")
            raise wrong("needs", repr(text), f"{key}={error.found}: {error.expected}") from error
        except ValueError as error:
            raise wrong("needs", repr(text), str(error)) from error

    def needed(self, config: Mapping[str, Any]) -> dict[str, int | str]:
        """Return what `needs` set for a run with that configuration; of those for one key, the last holds."""
        resources: dict[str, int | str] = {}
        for need in map(read_need, self.needs):
            resources |= need.resources if need.applies(config) else {}
        return resources

    def of_run(self, config: Mapping[str, Any], recorded: Mapping[str, int | str] | None = None) -> SlurmConfig:
        """Return the settings of the job of a run; `recorded` resources hold for what no need sets."""
        resources: dict[str, Any] = {**(recorded or {}), **self.needed(config)}
        return replace(self, needs=[], **resources)

    def _check_container(self) -> None:
        if self.container is not None and not (self.container.strip() and is_one_line(self.container)):
            raise wrong("container", self.container, "expected an image, e.g. headsweep.sif, or null")
        if self.container is None and self.container_mounts:
            raise wrong("container_mounts", self.container_mounts, "expected [] without hydra.launcher.container")
        if not all(
            is_one_line(mount) and re.fullmatch(r"/[^:,]*(:/[^:,]*(:\w+)?)?", mount) for mount in self.container_mounts
        ):
            raise wrong("container_mounts", self.container_mounts, MOUNTS)

    @property
    def asked(self) -> dict[str, int]:
        """What a job asks for, as `Submission` in `headsweep.status.submissions` records it."""
        slots = 1 if self.distributed else min(self.slots or self.gpus or 1, self.runs_per_job)
        known = {"time": self.time, "nodes": self.nodes, "gpus": self.gpus, "cpus": self.cpus, "slots": slots}
        memory = mebibytes(self.memory or "0")  # sbatch reads 0 as all memory of a node
        return known | ({"memory": memory} if memory else {})

    @property
    def tasks(self) -> int:
        """Processes of a job on each node: where its runs are distributed, one for each GPU."""
        return max(1, self.gpus) if self.distributed else 1

    @property
    def ranks(self) -> int:
        """Processes that train a run together."""
        return self.nodes * self.tasks
