"""Read the cells of runs from a tracker."""

from __future__ import annotations

from headsweep.report.read.cells import Cell, Run, gather
from headsweep.tracking.tracker import Tracker


def read_tracked(tracker: Tracker, query: str) -> list[Cell]:
    """Return the cells of the runs that `query` matches, in the order in which they were started.

    A run that was logged twice, from two output folders, counts once: as the one that finished, or the first.

    Raises:
        UserError: the store cannot be read, or no run of headsweep matches.
    """
    runs: dict[str, Run] = {}
    for it in tracker.query(query):
        run = Run(it.record, it.state, it.result, it.screened_out, it.data, it.history)
        if run.record.fingerprint not in runs or not runs[run.record.fingerprint].finished:
            runs[run.record.fingerprint] = run
    return gather(runs.values())
