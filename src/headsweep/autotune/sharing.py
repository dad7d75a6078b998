"""How the runs of a grid share this machine, from the keys of the local launcher."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from headsweep.autotune.batch_size import Room, fitting
from headsweep.autotune.slots import AutoSlots
from headsweep.config import RunConfig
from headsweep.launch.local.gpus import gpus_for
from headsweep.launch.local.slots import Slots

UNBOUNDED = sys.maxsize  # more runs than any machine trains at a time


@dataclass(frozen=True)
class Sharing:
    """Keys of the local launcher; see `Slots`, and `AutoSlots` for slots="auto"."""

    slots: int | str | None = None
    threads: int | None = None
    runs_per_gpu: int | None = None

    def auto_slots(self, runs: Sequence[RunConfig]) -> AutoSlots:
        """Return slots chosen by measuring the first run. Raises ConfigError as `AutoSlots.of_this_machine`."""
        return AutoSlots.of_this_machine(runs[0], self.threads, len(runs), gpus_for(runs), self.runs_per_gpu)

    def batch_size(self, runs: Sequence[RunConfig], measure: bool = True) -> int:
        """Return the batch size that fits all of `runs` (see `fitting`); it does not depend on the number of seeds."""
        slots = self.slots if isinstance(self.slots, int) else None
        room = Room.of(Slots.of_this_machine(slots, self.threads, UNBOUNDED, gpus_for(runs), self.runs_per_gpu))
        return fitting(runs, room, measure, lambda line: print(line, file=sys.stderr, flush=True))


ALONE = Sharing(slots=1)
