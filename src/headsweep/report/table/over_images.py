"""Add to a row the intervals that cover the draw of test images, from the predictions of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from headsweep.report.read.cells import Cell, Run
from headsweep.report.stats.crossed import difference_over_images, estimate_over_images
from headsweep.report.table.model import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = ("top1_images", "difference_images")
_TRACKED = "runs read from MLflow have no predictions by image"
_MISSING = "a run has no predictions by image"
_UNFINISHED = "the baseline has no finished run"
_UNEQUAL = "the runs were tested on different images"


class _Unknown(Exception):  # noqa: N818 - not an error
    """There is no interval over images, for this reason."""


def with_images(row: Row, cell: Cell, baseline: Cell | None) -> Row:
    """Return the row with its intervals over seeds and images of test top-1, or with the reason why it has none.

    Raises:
        Damaged: a file of predictions is damaged.
    """
    try:
        correct = _correct(cell.finished)
        row = replace(row, estimate_over_images=estimate_over_images(list(correct.values())))
        if baseline is None or baseline is cell or row.metric != "top1":
            return row
        others = _correct(baseline.finished)
        _check_same_images((*cell.finished, *baseline.finished), (*correct.values(), *others.values()))
        return replace(row, difference_over_images=difference_over_images(correct, others))
    except _Unknown as reason:
        return replace(row, no_images=str(reason))


def footnotes(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what the intervals over images mean, and why rows have none."""
    if any(row.estimate_over_images for row in rows):
        yield (
            "Over images: the 95 % interval covers another draw of seeds and of test images (crossed design, "
            "Satterthwaite's degrees of freedom); the interval over seeds holds for these test images only."
        )
    if any(row.difference_over_images for row in rows):
        yield "The intervals of differences over images are not corrected for multiple comparisons."
    reasons = dict.fromkeys(row.no_images for row in rows if row.no_images)
    if reasons:
        without = sum(bool(row.no_images) for row in rows)
        yield f"No interval over images in {without} of {len(rows)} rows: {'; '.join(reasons)}."


def _correct(runs: Sequence[Run]) -> dict[int, NDArray[np.bool_]]:
    """Return seed -> correctness by image."""
    if not runs:
        raise _Unknown(_UNFINISHED)
    found: dict[int, NDArray[np.bool_]] = {}
    for run in runs:
        if run.folder is None:
            raise _Unknown(_TRACKED)
        correct = run.folder.test_correct()
        if correct is None:
            raise _Unknown(_MISSING)
        found[run.record.seed] = correct
    _check_same_images(runs, list(found.values()))
    return found


def _check_same_images(runs: Sequence[Run], corrects: Sequence[NDArray[np.bool_]]) -> None:
    if len({run.data for run in runs}) > 1 or len({correct.size for correct in corrects}) > 1:
        raise _Unknown(_UNEQUAL)
