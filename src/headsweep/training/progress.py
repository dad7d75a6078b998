"""Progress of a run. Nothing here imports torch: another process may display it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How much of a run is done."""

    step: int
    steps: int
    epoch: int  # epochs done
    epochs: int
    metrics: dict[str, float] = field(default_factory=dict)  # of the epoch that just ended; empty within one
    gpu_memory_gib: float | None = None  # peak so far; None without a GPU


@dataclass(frozen=True)
class Notice:
    """A line about a run for the terminal of its launcher."""

    text: str


Watcher = Callable[[Progress], None]
Stop = Callable[[], bool]  # called after each step: whether to stop the run, which can be resumed later


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run stopped on request; its checkpoint is complete."""


class Busy(Exception):  # noqa: N818 - it is no error
    """Another process trains the run."""
