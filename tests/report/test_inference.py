"""The numbers are those of scipy and statsmodels, and seeds without spread give no interval and no p."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from headsweep.report.stats.inference import (
    estimate,
    holm,
    mcnemar_p,
    paired_difference,
    sign_flip_p,
    smallest_sign_flip_p,
)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_interval_is_scipys(n):
    values = np.random.default_rng(n).normal(0.9, 0.01, n)
    got = estimate(list(values))
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert got.mean - got.half_width == pytest.approx(low, abs=1e-12, rel=0)
    assert got.mean + got.half_width == pytest.approx(high, abs=1e-12, rel=0)
    assert got.n == n


def test_one_seed_has_no_interval_and_no_p():
    assert (estimate([0.9]).half_width, estimate([0.9]).n) == (None, 1)
    difference = paired_difference({0: 0.9}, {0: 0.8})
    assert (difference.half_width, difference.p, difference.n) == (None, None, 1)


def test_no_value_is_no_mean():
    with pytest.raises(ValueError, match="at least one value"):
        estimate([])


def test_equal_differences_are_not_certain():
    """A t-test of two equal differences gives p = 0: rounding and luck, not evidence."""
    difference = paired_difference({0: 0.91, 1: 0.81}, {0: 0.90, 1: 0.80})
    assert difference.mean == pytest.approx(0.01)
    assert (difference.half_width, difference.p) == (None, None)
    assert estimate([0.9, 0.9, 0.9]).half_width is None


@pytest.mark.parametrize("n", [2, 5, 12])
def test_paired_difference_is_scipys(n):
    rng = np.random.default_rng(n)
    reference = rng.normal(0.9, 0.05, n)
    values = reference + rng.normal(0.01, 0.01, n)
    got = paired_difference(dict(enumerate(values)), dict(enumerate(reference)))
    expected = stats.ttest_rel(values, reference)
    assert got.p == pytest.approx(expected.pvalue, abs=1e-12, rel=1e-9)
    low, high = expected.confidence_interval(0.95)
    assert got.mean - got.half_width == pytest.approx(low, abs=1e-12, rel=0)
    assert got.mean + got.half_width == pytest.approx(high, abs=1e-12, rel=0)


def test_pairs_are_by_seed_and_only_of_common_seeds():
    values, reference = {3: 0.9, 1: 0.7, 7: 0.1}, {1: 0.6, 3: 0.85, 9: 0.99}
    got = paired_difference(values, reference)
    assert got.n == 2
    assert got.mean == pytest.approx((0.05 + 0.1) / 2)
    assert got.p == pytest.approx(stats.ttest_rel([0.7, 0.9], [0.6, 0.85]).pvalue, rel=1e-9)
    assert paired_difference({1: 0.5}, {2: 0.5}) is None


@pytest.fixture
def uncollected(monkeypatch):
    """Let statsmodels collect no garbage first: of a worker, that takes a second."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.mark.usefixtures("uncollected")
def test_holm_is_statsmodels_and_skips_what_is_no_test():
    ps = list(np.random.default_rng(0).uniform(0, 0.2, 7))
    expected = list(multipletests(ps, method="holm")[1])
    assert holm([None, *ps[:3], None, *ps[3:]]) == [None, *expected[:3], None, *expected[3:]]
    assert holm([0.01, 0.04]) == [0.02, 0.04]
    assert holm([None]) == [None]


def test_smallest_sign_flip_p_is_what_enumeration_gives():
    for n in (2, 3, 5):
        flips = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1)
        sums = np.abs(flips.sum(axis=0))
        assert smallest_sign_flip_p(n) == np.mean(sums >= n)
    assert smallest_sign_flip_p(1) == 1.0


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_sign_flip_p_is_scipys(n):
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue, abs=1e-12)
    assert smallest_sign_flip_p(n) <= sign_flip_p(differences) <= 1


@pytest.mark.slow
def test_sign_flip_p_of_many_pairs_is_drawn_and_the_same_each_time():
    differences = np.random.default_rng(1).normal(0.3, 1, 30)
    drawn = sign_flip_p(differences)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=50_000, rng=np.random.default_rng(0)
    )
    assert drawn == sign_flip_p(differences)
    assert drawn == pytest.approx(expected.pvalue, abs=0.01)


def test_mcnemar_p_is_statsmodels():
    rng = np.random.default_rng(0)
    first, second = rng.random(500) < 0.9, rng.random(500) < 0.85
    counts = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]
    assert mcnemar_p(first, second) == pytest.approx(mcnemar(counts, exact=True).pvalue, abs=1e-12)
    assert mcnemar_p(first, first) == 1.0
    with pytest.raises(ValueError, match="500 and 499 images"):
        mcnemar_p(first, second[1:])


@pytest.mark.usefixtures("uncollected")
def test_a_family_that_lost_tests_is_no_smaller():
    assert holm([0.01, 0.02], family=5) == list(multipletests([0.01, 0.02, 1, 1, 1], method="holm")[1][:2])
    assert holm([0.01, None], family=1) == [0.01, None]


@pytest.mark.parametrize("n", [3, 5, 10])
def test_an_interval_has_its_nominal_coverage(n):
    """95 +/- 1 % of 10,000 simulated studies."""
    samples = np.random.default_rng(n).normal(0.77, 0.003, (10_000, n)).tolist()
    found = [estimate(values) for values in samples]
    covered = sum(abs(it.mean - 0.77) <= it.half_width for it in found) / len(found)
    assert abs(covered - 0.95) < 0.01
