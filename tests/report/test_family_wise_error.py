"""Without any true difference, at most 5 % of studies of tuned arms have a bold row.

Those of arms with one setting each are in `test_untuned_error_rate.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
from made_arms import made_setting
from scipy import stats

from headsweep.report.stats.inference import LEVEL, holm, paired_difference
from headsweep.report.stats.selection import choose
from headsweep.report.table.build import compare
from headsweep.report.table.model import Question

STUDIES = 2000
MOST = 30  # comparisons of a study
SETTINGS = 9
SEED, RUN, IMAGES = 0.01, 0.005, 0.01  # standard deviations, as of a thousand images at 90 %


def simulated(rng: np.random.Generator, n: int, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies on validation and test images, (study, arm, setting, seed); the first arm is the baseline.

    The best settings of all arms are equally good: one setting of the baseline, and all of its rivals. A choice by luck
    has more to choose from among theirs.
    """
    size = (studies, MOST + 1, SETTINGS, n)
    runs = 0.8 + SEED * rng.standard_normal((studies, 1, 1, n)) + RUN * rng.standard_normal(size)
    runs[:, 0, 1:] -= 0.1
    return tuple(runs + IMAGES * rng.standard_normal(size) for _ in ("val", "test"))


def chosen(by: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The test accuracies of the setting that `choose` takes for each arm, (arm, seed)."""
    at = [choose([dict(enumerate(setting)) for setting in arm]).at for arm in by.tolist()]
    return test[np.arange(len(at)), at]


def has_bold(arms: np.ndarray) -> bool:
    """Is an arm better than the first, by the rule of the table?"""
    spread = (arms[1:] - arms[0]).std(axis=1, ddof=1) / np.sqrt(arms.shape[1])
    t = (arms[1:] - arms[0]).mean(axis=1) / spread
    least = stats.t.isf(LEVEL / 2, arms.shape[1] - 1)  # the others have p > 0.05 before correction, too
    baseline = dict(enumerate(arms[0]))
    found = [paired_difference(dict(enumerate(arms[at + 1])), baseline) for at in np.flatnonzero(abs(t) > least)]
    ps = holm([difference.p for difference in found], family=len(t))
    return any(p < LEVEL and difference.mean > 0 for p, difference in zip(ps, found, strict=True))


def rate(n: int, by_test: bool = False, studies: int = STUDIES) -> float:
    """Share of studies, of 2 to 30 comparisons, with a bold row."""
    rng = np.random.default_rng(n)
    counts = rng.integers(3, MOST + 2, studies)  # of arms
    total = 0
    for part in np.array_split(counts, 10):
        val, test = simulated(rng, n, len(part))
        for study, count in enumerate(part):
            by = (test if by_test else val)[study, :count]
            total += has_bold(chosen(by, test[study, :count]))
    return total / studies


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5])
def test_at_most_one_study_in_twenty_has_a_bold_row(n):
    assert rate(n) <= LEVEL


@pytest.mark.parametrize("n", [3, 5])
def test_a_choice_by_test_images_exceeds_that(n):
    assert rate(n, by_test=True, studies=500) > 1.3 * LEVEL


def test_the_simulated_rule_is_that_of_the_table():
    val, test = simulated(np.random.default_rng(0), 5, 8)
    test[::2, 1] += 0.15
    for study in range(8):
        cells = [
            made_setting(f"h{arm}", list(test[study, arm, at]), list(val[study, arm, at]), optimizer__lr=at)
            for arm in range(4)
            for at in range(SETTINGS)
        ]
        table = compare(cells, Question(tune=("optimizer.lr",)))
        expected = has_bold(chosen(val[study, :4], test[study, :4]))
        assert any(row.is_better for row in table.rows) == expected
        assert expected or study % 2
