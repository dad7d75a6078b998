"""Area under the ROC curve, exact: from the ranks of all scores of a split."""

# n images, c classes

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
from numpy.typing import NDArray


def auroc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    """Return the mean over classes of the area under the ROC curve of one class against the rest.

    The area of a class is the share of pairs of an image of the class and another image of which the first has the
    higher score; a tie counts half (Mann and Whitney). Two classes have one curve, that of class 1. Classes without an
    image have none and are left out of the mean.

    Args:
        scores: (n, c) probabilities.
        labels: (n,).

    Returns:
        The mean, NaN if a score is not finite, None if all images are of one class.
    """
    if not np.isfinite(scores).all():
        return math.nan
    classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = [area for it in classes if (area := _area(scores[:, it], labels == it)) is not None]
    return fmean(areas) if areas else None


def _area(scores: NDArray[np.float64], is_of_class: NDArray[np.bool_]) -> float | None:
    positive, negative = np.sort(scores[is_of_class]), np.sort(scores[~is_of_class])
    if not len(positive) or not len(negative):
        return None
    below = negative.searchsorted(positive, "left").sum() + negative.searchsorted(positive, "right").sum()
    return float(below) / (2 * len(positive) * len(negative))
