"""The Pareto front of cost and accuracy: by means, and as far as paired tests support it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from headsweep.report.stats.inference import LEAST_SEEDS, LEVEL, holm, paired_difference


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (cost, accuracy) that no other dominates, by rising cost.

    A point dominates another if it costs no more, is no less accurate, and is better in one of the two. Points that
    are equal in both stay together.
    """
    found: list[int] = []
    last = (math.nan, -math.inf)
    for at in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        if points[at][1] > last[1] or points[at] == last:
            found.append(at)
            last = points[at]
    return found


def supported(
    places: Sequence[int], costs: Sequence[float], values: Sequence[Mapping[int, float]], planned: int = 0
) -> list[int]:
    """Return the points of the front that are significantly more accurate than each point that costs no more.

    A point must pass every one of its paired t-tests, so its largest p counts and needs no correction for their number
    (an intersection-union test). These p of the points are corrected for the number of points (Holm).

    Args:
        places: indices of the front.
        costs: of all points.
        values: seed -> accuracy, of all points.
        planned: number of planned points, if more than there are.
    """
    ps = [_largest_p(at, costs, values) for at in places]
    corrected = holm(ps, max(planned, len(costs)) - 1)  # any point but the cheapest could have been tested
    return [at for at, p in zip(places, corrected, strict=True) if p is not None and p < LEVEL]


def _largest_p(at: int, costs: Sequence[float], values: Sequence[Mapping[int, float]]) -> float | None:
    """Return the largest p over the points that cost no more; None if there are none, 1 once a test is not passed."""
    largest = None
    for other in range(len(costs)):
        if other == at or costs[other] > costs[at]:
            continue
        found = paired_difference(values[at], values[other])
        if found is None or found.n < LEAST_SEEDS or found.p is None or found.mean <= 0 or found.p >= LEVEL:
            return 1.0
        largest = max(largest or 0.0, found.p)
    return largest
