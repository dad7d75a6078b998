"""A setting is chosen by its mean over seeds."""

import pytest

from headsweep.report.stats.selection import Choice, choose, edge


def by_seed(*values):
    return dict(enumerate(values))


@pytest.mark.parametrize(
    ("values", "choice"),
    [
        ([by_seed(0.5), by_seed(0.7), by_seed(0.6)], Choice(1)),
        ([by_seed(0.9, 0.1), by_seed(0.6, 0.6)], Choice(1)),  # the mean, not the best seed
        ([by_seed(0.1 + 0.2, 0.3), by_seed(0.3, 0.3)], Choice(0, tied=2)),  # but for rounding equal
        ([by_seed(0.3, 0.3), by_seed(0.1 + 0.2, 0.3)], Choice(0, tied=2)),
        ([None, by_seed(0.0)], Choice(1)),
        ([{}, by_seed(0.0)], Choice(1)),
        ([None, None], Choice(0, tied=2)),
    ],
)
def test_the_highest_mean_is_chosen_and_the_first_of_equal_ones(values, choice):
    assert choose(values) == choice


def test_nothing_is_chosen_of_nothing():
    with pytest.raises(ValueError, match="at least one setting"):
        choose([])


@pytest.mark.parametrize(
    ("chosen", "values", "side"),
    [(3.0, [1.0, 2.0, 3.0], "upper"), (1.0, [3.0, 1.0, 2.0], "lower"), (2.0, [1.0, 2.0, 3.0], "")],
)
def test_the_edge_is_the_smallest_or_largest_value(chosen, values, side):
    assert edge(chosen, values) == side


def test_two_values_have_no_inside_and_so_no_edge():
    assert edge(1.0, [1.0, 2.0, 2.0]) == ""
