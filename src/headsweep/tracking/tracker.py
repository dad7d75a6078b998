"""Where runs and sweeps are mirrored: the interface of all trackers, and the one that mirrors nothing.

The metrics log of a run is its only record. A tracker may be slow, down or deleted, and is filled again from the runs'
folders. A new tracker is a class and its line in `trackers.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from headsweep.errors import UserError
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunResult, RunState
from headsweep.tracking.sweep_folder import SweepFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

Folder = RunFolder | SweepFolder


@dataclass(frozen=True)
class ExportedModel:
    """The model of a run, ready to be logged."""

    module: nn.Module  # on the CPU, in evaluation mode
    example: NDArray[np.float32]  # an input of one image, (1 c h w)
    classes: int


Export = Callable[[RunFolder], ExportedModel]


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker has stored it."""

    record: RunRecord
    state: RunState
    result: RunResult | None
    screened_out: str | None  # when, e.g. "3 of 20 epochs"
    data: str  # as RunRecord.data, for which the stored configuration may lack keys
    history: Callable[[str], Mapping[int, float]]  # metric -> epoch -> value


class Tracker(ABC):
    """Mirrors runs and sweeps, as in `with tracker: tracker.notify(folder)`.

    Abstract methods are what every tracker must do. The others are for trackers that store models or can be queried.
    """

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def notify(self, folder: Folder) -> None:
        """Mirror what is new in `folder`, a sweep before its runs; return at once and raise nothing."""

    @abstractmethod
    def close(self, timeout: float = 60.0) -> None:
        """Mirror what is left, for at most `timeout` seconds."""

    @abstractmethod
    def description(self) -> str:
        """Return, in lines to print, where the runs are shown; empty if nowhere."""

    def accepts_many_machines(self) -> bool:
        """Return whether processes on several machines may write at the same time."""
        return True

    def lacks_model(self, run: RunFolder) -> bool:
        """Return, from files alone, whether the run has a model to log that was not logged yet."""
        return False

    def log_models(self, runs: Sequence[RunFolder], export: Export) -> int:
        """Log the models of finished runs, each once; return how many the tracker lacked.

        Raises:
            UserError: some models could not be logged, the others have been.
        """
        return 0

    def register(self, run: RunFolder, name: str, export: Export) -> str:
        """Add the model of a finished run to the tracker's registry, once; return lines to print on how to use it.

        Raises:
            UserError: the tracker has no registry, or does not accept the model or its name.
        """
        raise UserError("this run's tracker has no model registry; give --uri ADDRESS of an MLflow store")

    def query(self, text: str) -> Iterable[TrackedRun]:
        """Return the stored runs that `text` matches, in the tracker's query language, in the order of their start.

        Raises:
            UserError: the tracker cannot be queried or read, or no run of headsweep's matches.
        """
        raise UserError(f"{text!r}: this tracker cannot be queried; name a sweep")


class NullTracker(Tracker):
    """Mirrors nothing: the runs' folders have everything."""

    def notify(self, folder: Folder) -> None:
        """Do nothing."""

    def close(self, timeout: float = 60.0) -> None:
        """Do nothing."""

    def description(self) -> str:
        """Return nothing to print."""
        return ""
