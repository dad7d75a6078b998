"""The front is what brute force finds."""

import itertools
import random

import pytest

from headsweep.report.page.pareto import front


def dominates(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_point_dominates_ties_included(seed):
    draw = random.Random(seed)
    points = [(draw.randint(1, 6), draw.randint(1, 6)) for _ in range(draw.randint(1, 30))]
    wanted = {at for at, point in enumerate(points) if not any(dominates(other, point) for other in points)}
    found = front(points)
    assert set(found) == wanted
    assert len(found) == len(wanted)
    assert all(points[a] <= points[b] for a, b in itertools.pairwise(found))
