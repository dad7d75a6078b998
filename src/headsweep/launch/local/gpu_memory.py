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
    """Return whether a run may start on a GPU beside the runs that are `there`.

    All in GiB, and None where unknown: a run of unknown need starts only on an empty GPU, and no other starts beside it
    until its need is known. On an empty GPU any run may start: if the GPU is too small, the run fails.

    Args:
        need: what the run is expected to take of the GPU's memory.
        free: what is not in use now.
        there: what each run there is expected to take, and what it has taken so far.
    """
    if not there:
        return True
    if need is None or any(expected is None for expected, _ in there):
        return False
    return need <= free - sum(max(0.0, expected - taken) for expected, taken in there if expected is not None)


class Packing:
    """The GPU memory that runs are expected to take: the most that any run with steps of the same cost has taken."""

    def __init__(self, output: Path) -> None:
        """Read the runs in the outputs folder when the first need is asked for."""
        self._output, self._measurements = output, Measurements(output, "need")
        self._classes: dict[RunFolder, str] = {}
        self._found: dict[str, float | None] = {}

    @cached_property
    def _known(self) -> dict[str, float]:
        return Records(self._output).gpu_memory

    def need(self, folder: RunFolder) -> float | None:
        """Return the GiB that a run is expected to take; None if it is not known for its cost."""
        name = self.cost_class(folder)
        known = self._known.get(name)
        return self._measured(name) if known is None else known

    def observe(self, folder: RunFolder, taken: float) -> None:
        """Record the GiB that a run has taken once it has trained and evaluated."""
        name = self.cost_class(folder)
        self._known[name] = max(self._known.get(name, 0.0), taken)

    def store_measurement(self, name: str, gib: float) -> None:
        """Store on disk the GiB that a run of this cost class has taken in a measurement."""
        self._measurements.put(_described(name), {"gib": gib})

    def cost_class(self, folder: RunFolder) -> str:
        """Return a name that is the same for all runs whose steps cost the same."""
        if folder not in self._classes:
            self._classes[folder] = cost_class(folder.record().config)
        return self._classes[folder]

    def _measured(self, name: str) -> float | None:
        if name not in self._found:
            found = self._measurements.get(_described(name))
            self._found[name] = float(found["gib"]) if found else None
        return self._found[name]


def _described(name: str) -> dict[str, str]:
    return {"run": name, "torch": version("torch")}
