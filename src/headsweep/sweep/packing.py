"""Which runs fit beside each other on a GPU."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from headsweep.sweep.records import Records, cost_class
from headsweep.tracking.run_folder import RunFolder


def fits(need: float | None, free: float, there: Collection[tuple[float | None, float]]) -> bool:
    """May a run start beside those that are `there`?

    All in GiB, and None where nobody knows: a run whose need is not known starts where no other is, and until it is
    known, no other starts beside it. Where no other is, any run may start: if the GPU is too small, it fails by itself.

    Args:
        need: what the run is expected to take of the GPU's memory.
        free: what nobody uses of it now.
        there: what each run there is expected to take, and what it has taken so far.
    """
    if not there:
        return True
    if need is None or any(expected is None for expected, _ in there):
        return False
    return need <= free - sum(max(0.0, expected - taken) for expected, taken in there if expected is not None)


class Packing:
    """What runs are expected to take of a GPU's memory: as much as any whose steps cost the same has taken."""

    def __init__(self, output: Path) -> None:
        """Learn from the runs in the outputs folder, as soon as anybody asks."""
        self._output = output
        self._classes: dict[RunFolder, str] = {}

    @cached_property
    def _known(self) -> dict[str, float]:
        return Records(self._output).gpu_memory

    def need(self, folder: RunFolder) -> float | None:
        """The memory, in GiB, that a run is expected to take; None before any like it has ended an epoch."""
        return self._known.get(self._class(folder))

    def learn(self, folder: RunFolder, taken: float) -> None:
        """A run that has trained and evaluated has taken so many GiB."""
        name = self._class(folder)
        self._known[name] = max(self._known.get(name, 0.0), taken)

    def _class(self, folder: RunFolder) -> str:
        if folder not in self._classes:
            self._classes[folder] = cost_class(folder.record().config)
        return self._classes[folder]
