"""Which tracker a configuration chooses: the only place that distinguishes trackers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsweep.tracking.addresses import planned_address
from headsweep.tracking.mlflow.reference import description_of
from headsweep.tracking.mlflow.tracker import MlflowTracker
from headsweep.tracking.tracker import Folder, NullTracker, Tracker

if TYPE_CHECKING:  # its import would slow `headsweep status`
    from headsweep.config import RunConfig

# tracking.name -> what makes the tracker from the address of its store (None: one in the output folder), the name of
# the experiment, and the output folder
TRACKERS: dict[str, Callable[[str | None, str, Path], Tracker]] = {
    "none": lambda uri, experiment, output: NullTracker(),
    "mlflow": MlflowTracker,
}


def tracker_of(config: RunConfig) -> Tracker:
    """Return the tracker that `config` chooses."""
    tracking = config.tracking
    return TRACKERS[tracking.name.value](tracking.uri, tracking.experiment, Path(config.paths.output))


def planned_tracker(config: Mapping[str, Any], output: Path) -> Tracker:
    """Return the tracker of a run whose record holds `config` and whose folder lies in `output` now."""
    tracking = config["tracking"]
    return TRACKERS[tracking["name"]](planned_address(config, output), tracking["experiment"], output)


def tracked_as(folder: Folder) -> str | None:
    """Return where a tracker has the run or sweep, in words; None if it was never sent to one.

    Raises:
        Damaged: the file in its folder that names the place cannot be read.
    """
    return description_of(folder.path)
