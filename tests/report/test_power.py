"""Power and seeds agree with scipy, statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from headsweep.report.stats.power import (
    MOST_SEEDS,
    detectable,
    equivalence_power,
    not_worse_power,
    power,
    requirement,
    seeds_needed,
    sign_flip_seeds,
    spread,
)

ALPHAS = (0.05, 0.05 / 8)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [2, 3, 5, 10, 200])
def test_power_is_that_of_statsmodels_wherever_it_has_one(n, alpha):
    known = 0
    for effect in (-0.3, 0.01, 0.1, 0.5, 1.0, 5.0):
        expected = TTestPower().power(effect, n, alpha)
        if not math.isnan(expected):  # scipy's noncentral t, far from the middle
            known += 1
            assert power(n, effect * 0.7, 0.7, alpha) == pytest.approx(expected, abs=1e-8)
    assert known >= 4


def test_power_is_what_a_simulation_finds():
    draws = np.random.default_rng(0).normal(0.8, 1.0, (20_000, 6))
    found = (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean()
    assert power(6, 0.8, 1.0, 0.05) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize("n", [3, 6, 20])
def test_power_of_a_margin_is_that_of_statsmodels_and_what_a_simulation_finds(n):
    margin = 1.2
    expected = TTestPower().power(margin, n, 0.05, alternative="larger")
    assert not_worse_power(n, margin, 1.0, 0.05) == pytest.approx(expected, abs=1e-8)
    draws = np.random.default_rng(n).normal(0.0, 1.0, (20_000, n))
    mean, error = draws.mean(axis=1), draws.std(axis=1, ddof=1) / math.sqrt(n)
    shown = np.abs(mean) + stats.t.isf(0.05, n - 1) * error < margin
    assert equivalence_power(n, margin, 1.0, 0.05) == pytest.approx(shown.mean(), abs=0.01)


@pytest.mark.parametrize("effect", [0.05, 0.3, 1.0, 4.0])
def test_the_seeds_are_the_fewest_that_have_the_power(effect):
    n = seeds_needed(effect, 1.0, 0.8, 0.025)
    assert power(n, effect, 1.0, 0.025) >= 0.8
    assert n == 2 or power(n - 1, effect, 1.0, 0.025) < 0.8


@pytest.mark.slow
def test_more_seeds_than_a_command_takes_are_none():
    assert seeds_needed(1e-6, 1.0, 0.8, 0.05) is None
    edge = detectable(MOST_SEEDS, 1.0, 0.8, 0.05)
    assert seeds_needed(1.00001 * edge, 1.0, 0.8, 0.05) == MOST_SEEDS
    assert seeds_needed(0.99999 * edge, 1.0, 0.8, 0.05) is None


@pytest.mark.parametrize("n", [2, 3, 30])
def test_the_detectable_difference_has_the_power(n):
    assert power(n, detectable(n, 0.4, 0.8, 0.01), 0.4, 0.01) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.slow
def test_the_interval_of_a_deviation_has_its_nominal_coverage():
    got = spread([0.01, 0.03, 0.02])
    assert got.deviation == pytest.approx(0.01)
    assert (got.low / got.deviation, got.high / got.deviation) == pytest.approx((0.5207, 6.2847), abs=1e-4)
    draws = np.random.default_rng(1).normal(size=(2000, 4))
    held = sum(got.low <= 1 <= got.high for got in map(spread, draws.tolist()))
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_one_difference_or_equal_ones_have_no_spread():
    assert spread([0.1]) is None
    assert spread([0.1, 0.1]) is None


def test_seeds_of_a_sign_flip_test():
    assert [sign_flip_seeds(alpha) for alpha in (0.5, 0.25, 0.05, 0.025)] == [3, 4, 6, 7]


@pytest.mark.slow
def test_a_requirement_is_for_the_estimated_spread_and_for_its_upper_limit():
    found = requirement([0.01, 0.03, 0.02], 0.01, 0.8, 0.05)
    assert (found.n, found.spread.deviation) == (3, pytest.approx(0.01))
    assert found.seeds == seeds_needed(0.01, 0.01, 0.8, 0.05)
    assert found.seeds_upper == seeds_needed(0.01, found.spread.high, 0.8, 0.05)
    assert found.detectable == pytest.approx(detectable(3, found.spread.deviation, 0.8, 0.05))


@pytest.mark.parametrize("differences", [[], [0.2]])
def test_fewer_than_two_differences_give_no_requirement(differences):
    found = requirement(differences, 0.01, 0.8, 0.05)
    assert (found.n, found.spread, found.seeds, found.detectable) == (len(differences), None, None, None)
