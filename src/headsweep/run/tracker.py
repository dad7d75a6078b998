"""The tracker that a configuration chooses."""

from __future__ import annotations

from pathlib import Path

from headsweep.config import RunConfig
from headsweep.tracking.tracker import Tracker
from headsweep.tracking.trackers import TRACKERS


def tracker_of(config: RunConfig) -> Tracker:
    """Return what mirrors the runs of `config`."""
    tracking = config.tracking
    return TRACKERS[tracking.name.value](tracking.uri, tracking.experiment, Path(config.paths.output))
