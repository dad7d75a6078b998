"""The order in which runs are started, which is not that of the plan and the table."""

from __future__ import annotations

from collections.abc import Sequence

from headsweep.tracking.run_folder import RunFolder


def by_seed(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """Return the runs of the lowest seed first, those of one seed in the order of the plan.

    The load of a machine changes over hours. Cell by cell, it would appear in the table as a difference in speed
    between heads; in this order it appears as a difference between the seeds of each cell.
    """
    return sorted(folders, key=lambda folder: folder.record().seed)
