"""Slots: how many runs train at the same time, with how many CPU threads and on which GPUs."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass

from headsweep.errors import ConfigError
from headsweep.text import plural

MOST_THREADS = 1024  # of a run, on a machine with fewer cores; OpenMP crashes at some tens of thousands
FILES_PER_RUN = 3  # that a launcher holds open: its connection and both ends of the pipes to its process
OTHER_FILES = 50  # of the launcher itself, with MLflow's


@dataclass(frozen=True)
class Slots:
    """The resources of runs that train at the same time."""

    count: int  # runs at a time
    threads: int  # CPU threads of each
    gpus: tuple[str, ...]  # identifiers for CUDA_VISIBLE_DEVICES; slot i uses gpus[i % len(gpus)]

    @staticmethod
    def of_this_machine(
        count: int | str | None, threads: int | None, runs: int, gpus: tuple[str, ...], runs_per_gpu: int | None = None
    ) -> Slots:
        """Return the slots asked for, or `runs_per_gpu` (else one) per GPU, or one per core; at most `runs`.

        `runs` is the number planned, finished ones included, so that the same command uses the same threads.

        Raises:
            ConfigError: a number asked for is not a whole number of at least 1, is more than the machine allows, or two
                of them contradict each other.
        """
        slots, threads = _whole("slots", count), _whole("threads", threads)
        runs_per_gpu = _whole("runs_per_gpu", runs_per_gpu)
        if runs_per_gpu is not None:
            _check_runs_per_gpu(runs_per_gpu, slots, len(gpus))
        cores = len(os.sched_getaffinity(0))
        number = min(slots or len(gpus) * (runs_per_gpu or 1) or min(cores, _most_runs()), runs)
        threads = threads or max(1, cores // number)
        _check_limits(number, threads)
        return Slots(number, threads, gpus)

    def gpu(self, slot: int) -> str | None:
        """Return the GPU of a slot, if there are GPUs."""
        return self.gpus[slot % len(self.gpus)] if self.gpus else None


def _whole(key: str, given: object) -> int | None:
    if given is None or (isinstance(given, int) and given >= 1):
        return given
    auto = " auto" * (key == "slots")
    raise ConfigError(f"hydra.launcher.{key}", given, f"expected an integer >= 1,{auto} or null")


def _check_limits(runs: int, threads: int) -> None:
    """Raise ConfigError for limits that would only show in the middle of a grid, some as a SIGSEGV."""
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if threads > most:
        raise ConfigError("hydra.launcher.threads", threads, f"expected at most {most} CPU threads for a run")
    if runs > (most := _most_runs()):
        expected = f"expected at most {most} runs at a time with this limit of open files (ulimit -n)"
        raise ConfigError("hydra.launcher.slots", runs, f"{expected}; raise it, or use fewer")


def _most_runs() -> int:
    """Return how many runs the limit of open files lets a launcher train at a time."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else max(1, (files - OTHER_FILES) // FILES_PER_RUN)


def _check_runs_per_gpu(runs_per_gpu: int, count: int | None, gpus: int) -> None:
    key = "hydra.launcher.runs_per_gpu"
    if not gpus:
        raise ConfigError(key, runs_per_gpu, "expected null, as the runs have no GPU here; give hydra.launcher.slots=N")
    if count not in (None, gpus * runs_per_gpu):
        product = f"{plural(gpus, 'GPU')} x {runs_per_gpu} = {gpus * runs_per_gpu} slots"
        raise ConfigError(
            key, runs_per_gpu, f"expected {product}, found hydra.launcher.slots={count}; give one of the two"
        )
