"""P(A > B): the share of pairs, and an interval that is exact and never too short."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headsweep.report.stats.superiority import superiority


def of(first, second):
    return superiority(dict(enumerate(first)), dict(enumerate(second)))


@pytest.mark.parametrize(("wins", "n"), [(0, 3), (2, 3), (5, 5), (4, 10)])
def test_without_ties_it_is_scipys_exact_binomial_interval(wins, n):
    got = of([1] * wins + [0] * (n - wins), [0.5] * n)
    expected = stats.binomtest(wins, n).proportion_ci(method="exact")
    assert (got.probability, got.n) == (wins / n, n)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_ties_count_half_and_widen_the_interval():
    got = of([0.9, 0.8, 0.7, 0.6], [0.8, 0.8, 0.8, 0.6])
    assert got.probability == 0.5
    assert got.low == pytest.approx(stats.binomtest(1, 4).proportion_ci(method="exact").low)
    assert got.high == pytest.approx(stats.binomtest(3, 4).proportion_ci(method="exact").high)


def test_pairs_share_the_seed():
    assert superiority({0: 1.0}, {1: 0.0}) is None
    assert superiority({0: 1.0, 2: 0.1}, {2: 0.0, 5: 0.9}).n == 1


@pytest.mark.parametrize("decimals", [2, 0])
def test_it_covers_the_probability_with_and_without_ties(decimals):
    """Seeds that share a shift; rounded to whole images, a tenth of the pairs tie."""
    draw, studies = np.random.default_rng(0), 2000
    many = draw.normal(1.0, 2.0, 1_000_000).round(decimals)
    probability = np.mean(many > 0) + np.mean(many == 0) / 2
    found = [of(values, [0.0] * 8) for values in draw.normal(1.0, 2.0, (studies, 8)).round(decimals).tolist()]
    assert np.mean([it.low <= probability <= it.high for it in found]) >= 0.95
