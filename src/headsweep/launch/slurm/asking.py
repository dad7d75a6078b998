"""What the jobs of runs ask the cluster for, by their needs, the records of finished runs and earlier time-outs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm.grouping import Group, grouped
from headsweep.launch.slurm.more_time import minutes_of
from headsweep.launch.slurm.recorded_needs import described, recorded_needs
from headsweep.tracking.run_folder import RunFolder


def groups_of(
    runs: Sequence[RunFolder], settings: SlurmConfig, configs: Mapping[RunFolder, Mapping[str, Any]] | None = None
) -> list[Group]:
    """Return runs by what their jobs ask for; print lines about what comes from records, and after time-outs."""
    found = recorded_needs(runs, settings, configs)
    for line in described(found, settings):
        print(line)
    recorded = {run: it.resources for run, it in found.items()}
    minutes = minutes_of(grouped(runs, settings, configs, recorded))
    return grouped(runs, settings, configs, recorded, minutes)
