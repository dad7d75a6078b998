"""What runs will take of a GPU's memory, measured so that they may share it from the first on.

Else a run of which nobody knows that has its GPU to itself, and in a grid of one seed that is every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headsweep.autotune.measurement import Unmeasured, memory
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.gpu_memory import Packing
from headsweep.launch.local.slots import Slots
from headsweep.launch.signals import StopRequest
from headsweep.plan.frozen import frozen
from headsweep.tracking.run_folder import RunFolder


def measure_needs(
    folders: Sequence[RunFolder], processes: Processes, slots: Slots, say: Callable[[str], object]
) -> None:
    """Where runs are to share GPUs, measure those of whose cost none has been measured or trained, once for each cost.

    One that cannot be measured stays unknown. Raises Interrupted if someone asks to stop.
    """
    if not slots.gpus or slots.count <= len(slots.gpus):
        return
    packing = Packing(folders[0].output.path)
    unknown = {packing.cost_class(folder): folder for folder in folders if packing.need(folder) is None}
    if unknown:
        say(f"slots: measuring the memory of {len(unknown)} kind{'s' * (len(unknown) != 1)} of runs")
    with StopRequest() as request:
        for name, folder in unknown.items():
            try:
                gib, _ = memory(processes, frozen(folder), slots.threads, slots.gpus[0], request)
            except Unmeasured:
                continue
            packing.foretell(name, gib)
