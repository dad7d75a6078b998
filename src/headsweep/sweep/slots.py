"""What a machine gives to runs that train at the same time."""

from __future__ import annotations

import os
from dataclasses import dataclass

from headsweep.errors import ConfigError


@dataclass(frozen=True)
class Slots:
    """What the machine gives to runs."""

    count: int  # runs at a time
    threads: int  # CPU threads of each
    gpus: tuple[str, ...]  # identifiers for CUDA_VISIBLE_DEVICES; slot i uses gpus[i % len(gpus)]

    @staticmethod
    def of_this_machine(count: int | None, threads: int | None, runs: int, gpus: tuple[str, ...]) -> Slots:
        """The slots asked for, or one per GPU, or one per core; more than there are `runs` are of no use.

        `runs` is the number planned, finished ones included, so that the same command uses the same threads.

        Raises:
            ConfigError: a number asked for is not a whole number of at least 1.
        """
        for key, given in (("slots", count), ("threads", threads)):
            if given is not None and (not isinstance(given, int) or given < 1):
                raise ConfigError(f"hydra.launcher.{key}", given, "want a whole number of at least 1, or null")
        cores = len(os.sched_getaffinity(0))
        count = min(count or len(gpus) or cores, runs)
        return Slots(count, threads or max(1, cores // count), gpus)

    def gpu(self, slot: int) -> str | None:
        """The GPU of a slot, if there are GPUs."""
        return self.gpus[slot % len(self.gpus)] if self.gpus else None
