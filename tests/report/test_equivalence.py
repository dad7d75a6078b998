"""Verdicts at a margin: the p are those of statsmodels, and no table claims more than its level allows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.weightstats import ttost_paired

from headsweep.report.stats.equivalence import against_margin
from headsweep.report.stats.inference import holm, paired_difference
from headsweep.report.table.model import Row
from headsweep.report.table.verdicts import with_verdicts

pytestmark = pytest.mark.slow

MARGIN = 0.3  # points


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("shift", [-0.006, 0.0, 0.002, 0.01])
def test_p_are_those_of_statsmodels(n, shift):
    draw = np.random.default_rng(n)
    baseline = draw.normal(0.9, 0.01, n)
    values = baseline + draw.normal(shift, 0.004, n)
    got = against_margin(paired_difference(dict(enumerate(values)), dict(enumerate(baseline))), 0.003)
    p, (_, above, _), (_, below, _) = ttost_paired(values, baseline, -0.003, 0.003)
    assert (got.equivalent, got.not_worse, got.not_better) == pytest.approx((p, above, below), abs=1e-10, rel=0)


def test_one_seed_and_equal_differences_have_no_test():
    assert against_margin(paired_difference({0: 0.9}, {0: 0.8}), 0.01) is None
    assert against_margin(paired_difference({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.7}), 0.01) is None


def row(points, undecided: str | None = None) -> Row:
    """A row with these paired differences in points."""
    values = {seed: 0.9 + value / 100 for seed, value in enumerate(points)}
    difference = paired_difference(values, dict.fromkeys(values, 0.9))
    p = difference.p if difference else None
    seeds = tuple(values)
    return Row("ga", 1, (), "finished", seeds, len(seeds), (), {}, difference=difference, undecided=undecided, p=p)


def verdict(points, undecided=None, family=1) -> str:
    return with_verdicts([row(points, undecided)], MARGIN, family)[0].verdict.text


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([0.9, 1.0, 1.1], "better"),
        ([-0.9, -1.0, -1.1], "worse"),
        ([0.05, -0.05, 0.0, 0.02, -0.02], "equivalent"),
        ([0.10, 0.11, 0.12], "equivalent, better"),
        ([-0.10, -0.11, -0.12], "equivalent, worse"),
        ([0.0, 0.4, 0.2, -0.1, 0.5], "not worse"),
        ([0.9, -0.9, 0.1], "undecided"),
    ],
)
def test_a_verdict_is_what_the_differences_show(points, expected):
    assert verdict(points) == expected


@pytest.mark.parametrize(("points", "reason"), [([1.0, 1.001], "2 seeds"), ([0.9, 1.0, 1.1], "2 of 5 seeds failed")])
def test_a_row_that_supports_no_claim_has_none_at_a_margin_either(points, reason):
    assert verdict(points) != "undecided"
    assert verdict(points, reason) == f"undecided ({reason})"


def test_a_row_without_a_claim_does_not_count_as_the_smallest_p_of_the_others():
    """Holm's correction would be weaker for the others if it had the smallest p."""
    points = [0.0, 0.4, 0.2, -0.1, 0.5]
    rows = with_verdicts([row(points), row([0.10, 0.11, 0.12], "1 of 4 seeds failed")], MARGIN, family=2)
    alone = with_verdicts([row(points)], MARGIN, family=2)
    assert rows[0].verdict == alone[0].verdict


def test_more_comparisons_need_more_evidence():
    points = [0.0, 0.4, 0.2, -0.1, 0.5]
    p = against_margin(row(points).difference, MARGIN / 100).not_worse
    assert verdict(points, family=int(0.05 / p)) == "not worse"
    assert verdict(points, family=int(0.05 / p) + 1) == "undecided"


def claims(true_points: float, studies: int, heads: int, seeds: int) -> list[set[str]]:
    """Claims of simulated studies, in each of which every head has the same true difference from a shared baseline."""
    draw, found = np.random.default_rng(heads), []
    for _ in range(studies):
        baseline = draw.normal(90, 0.15, seeds)
        rows = [row(draw.normal(90 + true_points, 0.15, seeds) - baseline) for _ in range(heads)]
        ps = holm([one.difference.p for one in rows])
        rows = [Row(**{**vars(one), "p": p}) for one, p in zip(rows, ps, strict=True)]
        found.append({claim for one in with_verdicts(rows, MARGIN, heads) for claim in one.verdict.claims})
    return found


@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize(
    ("true_points", "false"),
    [(0.0, {"better", "worse"}), (MARGIN, {"equivalent", "worse"}), (-MARGIN, {"equivalent", "not worse", "better"})],
)
def test_a_study_makes_a_false_claim_in_at_most_one_of_twenty(true_points, false, heads):
    studies = 400
    wrong = sum(bool(found & false) for found in claims(true_points, studies, heads, seeds=5)) / studies
    assert wrong <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / studies)
