"""What a watcher of a run hears. Nothing here imports torch: the watcher may be a process without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int
    steps: int
    epoch: int  # epochs done
    epochs: int
    metrics: dict[str, float] = field(default_factory=dict)  # of the epoch that has just ended; empty within one
    gpu_memory_gib: float | None = None  # the most that the process has taken so far; None without a GPU


Watcher = Callable[[Progress], None]
Stop = Callable[[], bool]  # asked after each step: shall the run stop, to be continued later?


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run has stopped as it was asked to; its checkpoint has all that it did."""


class Busy(Exception):  # noqa: N818 - it is no error
    """Another process trains the run."""
