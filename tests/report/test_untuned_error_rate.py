"""Without a true difference, at most 5 % of studies have any bold row."""

from __future__ import annotations

import numpy as np
import pytest
from made_cells import made_cell
from scipy import stats

from headsweep.report.table.build import compare
from headsweep.report.table.model import Question

pytestmark = pytest.mark.slow

STUDIES = 5000
CHECKED = 4  # studies with, and as many without bold, whose true tables are made


def simulated(seeds: int, comparisons: int) -> np.ndarray:
    """Accuracies (studies, cells, seeds), the baseline first: the seeds shift all cells of a study together."""
    rng = np.random.default_rng(seeds * 100 + comparisons)
    of_seed = rng.normal(0.8, 0.01, (STUDIES, 1, seeds))
    return of_seed + rng.normal(0, 0.004, (STUDIES, comparisons + 1, seeds))


def bold(studies: np.ndarray) -> np.ndarray:
    """Which rows are bold (studies, comparisons): a paired t-test, corrected by Holm, and better."""
    differences = studies[:, 1:] - studies[:, :1]
    ps = stats.ttest_1samp(differences, 0, axis=2).pvalue
    order = np.argsort(ps, axis=1)
    steps = np.take_along_axis(ps, order, axis=1) * np.arange(ps.shape[1], 0, -1)
    corrected = np.empty_like(ps)
    np.put_along_axis(corrected, order, np.maximum.accumulate(np.minimum(steps, 1), axis=1), axis=1)
    return (corrected < 0.05) & (differences.mean(axis=2) > 0)


def bold_in_table(study: np.ndarray) -> list[bool]:
    rows = compare([made_cell(f"h{at}", list(tops)) for at, tops in enumerate(study)], Question()).rows
    assert rows[0].is_baseline
    return [row.is_better for row in rows[1:]]


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("comparisons", [2, 5, 12, 30])
def test_any_bold_row_without_a_difference(seeds, comparisons):
    studies = simulated(seeds, comparisons)
    found = bold(studies)
    any_bold = found.any(axis=1)
    assert any_bold.mean() <= 0.05
    checked = [*np.flatnonzero(any_bold)[:CHECKED], *np.flatnonzero(~any_bold)[:CHECKED]]
    assert len(checked) > CHECKED  # some have bold rows
    for at in checked:
        assert bold_in_table(studies[at]) == found[at].tolist()


def test_two_seeds_are_never_bold_whatever_the_number_of_comparisons():
    studies = simulated(2, 5)
    for at in np.flatnonzero(bold(studies).any(axis=1))[:CHECKED]:
        assert not any(bold_in_table(studies[at]))
