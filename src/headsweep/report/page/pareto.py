"""Which points nothing beats in both cost and accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points (cost, accuracy) that no other dominates, by rising cost.

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
