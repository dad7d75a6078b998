"""The tuning curve is the mean over all subsets of the tried settings."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from headsweep.report.stats.selection import choose
from headsweep.report.stats.tuning_curve import tuning_curve


def enumerated(val, test) -> list[float]:
    """The mean over every subset of each size of the test metric of the first setting with the best validation."""
    n = len(val)
    return [
        np.mean([test[max(subset, key=lambda at: val[at])] for subset in combinations(range(n), k)])
        for k in range(1, n + 1)
    ]


@pytest.mark.parametrize("n", [1, 2, 5, 9, 12])
@pytest.mark.parametrize("decimals", [6, 1], ids=["distinct", "ties"])
def test_it_equals_the_enumeration_of_all_subsets(n, decimals):
    draw = np.random.default_rng(n)
    val = draw.random(n).round(decimals)
    test = val + draw.normal(0, 0.05, n)
    assert tuning_curve(val, test) == pytest.approx(enumerated(val, test), abs=1e-12, rel=0)


def test_it_begins_with_the_mean_and_ends_with_the_setting_that_is_chosen_of_all():
    val, test = [0.5, 0.9, 0.9, 0.1], [0.4, 0.7, 0.8, 0.2]
    curve = tuning_curve(val, test)
    assert curve[0] == pytest.approx(np.mean(test)) and curve[-1] == 0.7


def test_a_choice_on_validation_images_can_lower_the_test_metric():
    assert tuning_curve([0.1, 0.2], [0.9, 0.5]) == pytest.approx([0.7, 0.5])


def test_it_is_exact_for_hundreds_of_settings():
    n = 300
    curve = tuning_curve(range(n), range(n))
    expected = [k * (n + 1) / (k + 1) - 1 for k in range(1, n + 1)]  # of the maximum of k of the numbers 0 to n - 1
    assert curve == pytest.approx(expected, rel=1e-12)


def test_it_is_unbiased_where_the_estimator_with_replacement_is_not():
    """The mean over many studies of 6 settings is the expected maximum of k fresh ones (k/(k + 1), uniform)."""
    draw = np.random.default_rng(0)
    studies = [sorted(draw.random(6)) for _ in range(4000)]
    found = np.mean([tuning_curve(study, study) for study in studies], axis=0)
    expected = np.array([k / (k + 1) for k in range(1, 7)])
    assert found == pytest.approx(expected, abs=0.01)
    ranks = np.arange(1, 7) / 6
    replaced = np.mean([np.sum(np.array(study) * (ranks**6 - (ranks - 1 / 6) ** 6)) for study in studies])
    assert replaced < expected[-1] - 0.02


def test_it_ends_with_the_setting_that_a_table_chooses():
    draw = np.random.default_rng(0)
    for _ in range(50):
        val = draw.integers(0, 3, 5) / 10 + draw.integers(-1, 2, 5) * 1e-13  # equal but for rounding
        test = draw.random(5)
        assert tuning_curve(val, test)[-1] == test[choose([{0: value} for value in val]).at]


def test_a_setting_without_a_number_counts_as_worst_and_has_no_value_where_nothing_else_was_tried():
    curve = tuning_curve([0.5, -math.inf, 0.4], [0.6, math.nan, 0.7])
    assert math.isnan(curve[0]) and curve[1:] == pytest.approx([(0.6 + 0.6 + 0.7) / 3, 0.6])
    assert all(map(math.isnan, tuning_curve([-math.inf] * 2, [math.nan] * 2)))


@pytest.mark.parametrize(("val", "test"), [([], []), ([0.1], [0.1, 0.2])])
def test_a_setting_without_a_test_metric_is_refused(val, test):
    with pytest.raises(ValueError, match=f"found {len(test)} for {len(val)}"):
        tuning_curve(val, test)
