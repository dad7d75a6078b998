"""The front is what brute force finds, and only significant points of it are supported."""

import itertools
import random

import pytest

from headsweep.report.stats.pareto import front, supported


def dominates(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_point_dominates_ties_included(seed):
    draw = random.Random(seed)
    points = [(draw.randint(1, 6), draw.randint(1, 6)) for _ in range(draw.randint(1, 30))]
    expected = {at for at, point in enumerate(points) if not any(dominates(other, point) for other in points)}
    found = front(points)
    assert set(found) == expected
    assert len(found) == len(expected)
    assert all(points[a] <= points[b] for a, b in itertools.pairwise(found))


SEEDS = {0: 0.50, 1: 0.54, 2: 0.46, 3: 0.51}  # far apart, as seeds are


def better(by: float, noise: float = 0.001) -> dict[int, float]:
    return {seed: value + by + noise * (-1) ** seed for seed, value in SEEDS.items()}


def test_a_point_is_supported_if_it_beats_each_point_that_costs_no_more_by_the_same_seeds():
    assert supported([0, 1], [1, 2], [SEEDS, better(0.05)]) == [1]
    assert supported([0, 1], [1, 2], [SEEDS, better(0.0005)]) == []
    assert supported([0, 2], [1, 1, 2], [SEEDS, better(0.0499, 0.02), better(0.05)]) == []  # one of two is too near
    assert supported([0, 1], [1, 2], [SEEDS, {9: 0.9, 8: 0.91, 7: 0.92}]) == []  # no seed in common


def test_the_more_points_could_have_been_on_the_front_the_more_it_takes():
    wins = better(0.004, 0.0015)
    assert supported([0, 1], [1, 2], [SEEDS, wins]) == [1]
    crowd = [better(-0.3 - at / 100, 0.01) for at in range(30)]
    assert supported([0, 1], [1, 2, *range(3, 33)], [SEEDS, wins, *crowd]) == []


def test_one_seed_or_seeds_without_spread_support_nothing():
    assert supported([0, 1], [1, 2], [{0: 0.5}, {0: 0.9}]) == []
    assert supported([0, 1], [1, 2], [SEEDS, better(0.1, 0)]) == []
