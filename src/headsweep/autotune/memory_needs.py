"""Measure the GPU memory of runs before they are trained, so that the first ones can already share a GPU.

A run of unknown memory has its GPU to itself, and in a grid of one seed every run is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headsweep.autotune.measurement import Unmeasured, memory
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.gpu_memory import Packing
from headsweep.launch.local.slots import Slots
from headsweep.launch.signals import StopRequest
from headsweep.plan.frozen import frozen
from headsweep.text import plural
from headsweep.tracking.run_folder import RunFolder


def measure_needs(
    folders: Sequence[RunFolder], processes: Processes, slots: Slots, log: Callable[[str], object]
) -> None:
    """If runs share GPUs, measure one run of each cost class of unknown memory.

    A run that cannot be measured stays unknown. Raises Interrupted if a stop was requested.
    """
    if not slots.gpus or slots.count <= len(slots.gpus):
        return
    packing = Packing(folders[0].output.path)
    unknown = {packing.cost_class(folder): folder for folder in folders if packing.need(folder) is None}
    if unknown:
        log(f"slots: measuring the memory of {plural(len(unknown), 'kind')} of runs")
    with StopRequest() as request:
        for name, folder in unknown.items():
            try:
                gib, _ = memory(processes, frozen(folder), slots.threads, slots.gpus[0], request)
            except Unmeasured:
                continue
            packing.store_measurement(name, gib)
