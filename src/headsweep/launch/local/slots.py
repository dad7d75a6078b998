"""Slots: how many runs train at the same time, with how many CPU threads and on which GPUs."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass

from headsweep.errors import ConfigError
from headsweep.text import plural

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
        count: int | None, threads: int | None, runs: int, gpus: tuple[str, ...], runs_per_gpu: int | None = None
    ) -> Slots:
        """Return the slots asked for, or `runs_per_gpu` (else one) per GPU, or one per core; at most `runs`.

        `runs` is the number planned, finished ones included, so that the same command uses the same threads.

        Raises:
            ConfigError: there would be more than the limit of open files allows, or two numbers contradict each other.
        """
        if runs_per_gpu is not None:
            _check_runs_per_gpu(runs_per_gpu, count, len(gpus))
        cores = len(os.sched_getaffinity(0))
        number = min(count or len(gpus) * (runs_per_gpu or 1) or min(cores, _most_runs()), runs)
        if number > (most := _most_runs()):
            expected = f"expected at most {most} runs at a time with this limit of open files (ulimit -n)"
            raise ConfigError("hydra.launcher.slots", number, f"{expected}; raise it, or use fewer")
        return Slots(number, threads or max(1, cores // number), gpus)

    def gpu(self, slot: int) -> str | None:
        """Return the GPU of a slot, if there are GPUs."""
        return self.gpus[slot % len(self.gpus)] if self.gpus else None


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
