"""Which runs fit beside each other on a GPU."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from headsweep.plan.past_costs import Records, cost_class
from headsweep.tracking.measurements import Measurements
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
        self._output, self._foretold = output, Measurements(output, "need")
        self._classes: dict[RunFolder, str] = {}
        self._found: dict[str, float | None] = {}

    @cached_property
    def _known(self) -> dict[str, float]:
        return Records(self._output).gpu_memory

    def need(self, folder: RunFolder) -> float | None:
        """The memory, in GiB, that a run is expected to take.

        None before any like it has ended an epoch, or was measured.
        """
        name = self.cost_class(folder)
        known = self._known.get(name)
        return self._measured(name) if known is None else known

    def learn(self, folder: RunFolder, taken: float) -> None:
        """A run that has trained and evaluated has taken so many GiB."""
        name = self.cost_class(folder)
        self._known[name] = max(self._known.get(name, 0.0), taken)

    def foretell(self, name: str, gib: float) -> None:
        """A run of this cost class was measured to take so many GiB; remember it for whoever asks later."""
        self._foretold.put(_described(name), {"gib": gib})

    def cost_class(self, folder: RunFolder) -> str:
        """The same for all runs whose steps cost the same."""
        if folder not in self._classes:
            self._classes[folder] = cost_class(folder.record().config)
        return self._classes[folder]

    def _measured(self, name: str) -> float | None:
        if name not in self._found:
            found = self._foretold.get(_described(name))
            self._found[name] = float(found["gib"]) if found else None
        return self._found[name]


def _described(name: str) -> dict[str, str]:
    return {"run": name, "torch": version("torch")}
