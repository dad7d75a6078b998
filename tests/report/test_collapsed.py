"""Single seeds that collapse make the interval of a mean too narrow, and are named below the table."""

from __future__ import annotations

import numpy as np
import pytest
from made_cells import made_cell
from rendering import as_markdown
from scipy import stats

from headsweep.report.stats.collapsed import collapsed
from headsweep.report.table.build import compare
from headsweep.report.table.model import Question

STEADY = [0.845, 0.851, 0.848, 0.850, 0.847]


def fires(studies: np.ndarray) -> float:
    """The share of studies, (studies, seeds), in which a seed is found."""
    return sum(bool(collapsed(dict(enumerate(study)))) for study in studies.tolist()) / len(studies)


def coverage(studies: np.ndarray, true_mean: float) -> float:
    """That of the 95 % t-interval of the mean over seeds."""
    n = studies.shape[1]
    half = stats.t.ppf(0.975, n - 1) * stats.sem(studies, axis=1)
    return float(np.mean(np.abs(studies.mean(axis=1) - true_mean) <= half))


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.004), (5, 0.004), (10, 0.001)])
def test_it_rarely_fires_for_a_normal_distribution(seeds, least):
    assert least <= fires(np.random.default_rng(0).normal(0.8, 0.03, (12_000 // seeds, seeds))) < 0.014


@pytest.mark.parametrize("seeds", [5, 10])
def test_it_fires_where_seeds_collapse_and_the_interval_of_the_mean_does_not_hold(seeds):
    rng = np.random.default_rng(1)
    rate, drop = 0.1, 0.2
    collapses = rng.random((4000, seeds)) < rate
    studies = rng.normal(0.85, 0.005, (4000, seeds)) - drop * collapses
    assert coverage(studies, 0.85 - rate * drop) < 0.9
    some = collapses.any(axis=1) & (2 * collapses.sum(axis=1) < seeds)
    assert fires(studies[some]) > 0.9
    assert fires(studies[~collapses.any(axis=1)]) < 0.02


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_of_skewed_means_cover_less_and_those_of_their_differences_hold(seeds):
    skewed = -np.random.default_rng(2).exponential(size=(2, 100_000, seeds))
    assert 0.875 < coverage(skewed[0], -1.0) < 0.89
    assert 0.965 < coverage(skewed[0] - skewed[1], 0.0) < 0.975


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([*STEADY[:4], 0.3], [4]),
        ([0.2, *STEADY[1:4], 0.3], [0, 4]),  # two hide each other from a test of the lowest alone
        (STEADY, []),
        ([0.85, 0.85, 0.85, 0.85, 0.8472], []),  # one image of 360
        ([0.85, 0.85, 0.85, 0.85, 0.5], [4]),
        ([0.85] * 5, []),
        ([0.8, 0.3], []),
        ([0.85, 0.85, 0.3], [2]),
        ([0.85], []),
        ([], []),
    ],
)
def test_thin_data_ties_and_several_collapses(values, found):
    assert collapsed(dict(enumerate(values))) == found


def test_the_footnote_names_the_cell_and_its_seed():
    text = as_markdown(compare([made_cell("seqpool", STEADY), made_cell("ga", [*STEADY[:4], 0.512])], Question()))
    assert "COLLAPSED SEEDS: head=ga heads=1 (seed 4 51.20, median 84.80). The ± of a mean assumes" in text
    assert "COLLAPSED" not in as_markdown(compare([made_cell("seqpool", STEADY)], Question()))


def test_of_three_seeds_two_may_be_equal_by_chance():
    """As on 359 test images, where 1.1 points are four images."""
    assert collapsed({0: 354 / 359, 1: 350 / 359, 2: 354 / 359}) == []
    assert collapsed({0: 354 / 359, 1: 250 / 359, 2: 354 / 359}) == [1]
