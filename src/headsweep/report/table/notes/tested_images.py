"""On how many images the runs of a table were tested, and what a single accuracy on so many is worth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from headsweep.report.read.cells import Cell
from headsweep.report.table.metrics import Metric
from headsweep.tracking.typed_files import Damaged


def footnotes(cells: Sequence[Cell], against: Sequence[Cell | None], metric: Metric) -> Iterator[str]:
    """Yield the number of test images for each data set, with the binomial standard error of one run.

    The error is that at the mean accuracy of the first baseline on that data, or without one of the first cell. Runs
    that were read from a tracker have no predictions by image, and no footnote.
    """
    if not metric.logged_as.startswith(("test/", "best/")):
        return
    first: dict[str, Cell] = {}
    for cell in sorted((cell for cell in cells if metric.by_seed(cell)), key=lambda cell: cell not in against):
        first.setdefault(cell.runs[0].data, cell)
    for cell in first.values():
        if images := _images(cell):
            accuracy = statistics.fmean(metric.by_seed(cell).values())
            dataset = cell.value("dataset")
            yield f"{images:,} test images{f' of {dataset}' if dataset else ''}{_error(accuracy, images, metric)}."


def _error(accuracy: float, images: int, metric: Metric) -> str:
    if not 0 < accuracy < 1 or not metric.is_share_of_images:
        return ""
    points = 100 * math.sqrt(accuracy * (1 - accuracy) / images)
    return f": the standard error of one run at {100 * accuracy:.2f} % {metric.noun} is {points:.2f} points (binomial)"


def _images(cell: Cell) -> int | None:
    """Return the number of test images; None where no run has its predictions, or they are damaged."""
    for run in cell.finished:
        try:
            correct = run.folder.test_correct() if run.folder else None
        except Damaged:
            continue
        if correct is not None:
            return int(correct.size)
    return None
