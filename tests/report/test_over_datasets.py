"""Several data sets in one verdict: ranks, Friedman's test, Nemenyi's critical difference."""

from __future__ import annotations

import numpy as np
import pytest
from made_cells import made_cell
from rendering import on_screen
from scipy import stats

from headsweep.errors import UserError
from headsweep.report.stats.ranks import friedman, rank_arms
from headsweep.report.table.build import compare
from headsweep.report.table.model import Question
from headsweep.report.table.over_datasets import checked, sheet
from headsweep.tracking.run_record import RunState

pytestmark = pytest.mark.slow

# Demsar 2006, table 6: AUC of four versions of C4.5 on 14 data sets.
DEMSAR = np.array([
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
]).T  # fmt: skip


def cells(sets: int, heads=("seqpool", "ga", "gap"), seeds: int = 3, gain: float = 0.02, **options):
    rng = np.random.default_rng(0)
    return [
        made_cell(
            head,
            list(rng.normal(0.7 + at * gain, 0.002, seeds)),
            parameters={"dataset.name": f"set{number}"},
            **options,
        )
        for at, head in enumerate(heads)
        for number in range(sets)
    ]


def test_ranks_and_critical_difference_are_those_of_a_published_case():
    found = rank_arms(DEMSAR)
    assert found.mean_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    without_ties = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in found.mean_ranks) - 4 * 5**2 / 4)
    assert without_ties == pytest.approx(9.28, abs=0.01)  # as printed
    assert found.statistic == pytest.approx(stats.friedmanchisquare(*DEMSAR).statistic, rel=1e-9)
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)  # 1.25
    assert found.p == pytest.approx(stats.friedmanchisquare(*DEMSAR).pvalue, abs=0.006)


@pytest.mark.parametrize("decimals", [9, 1])  # without ties, with many
def test_the_statistic_is_that_of_scipy(decimals):
    values = np.random.default_rng(1).random((4, 9)).round(decimals)
    ranks = stats.rankdata(-values, axis=0)
    assert friedman(ranks) == pytest.approx(stats.friedmanchisquare(*values).statistic, rel=1e-9)


def test_p_of_three_sets_is_that_by_hand():
    """Three arms in the same order on three sets: 6 of the 216 orders, p = 1/36; the sums 3, 6, 9."""
    found = rank_arms([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.7, 0.6, 0.5]])
    assert found.mean_ranks == (1.0, 2.0, 3.0)
    assert (found.statistic, found.p, found.is_exact) == (pytest.approx(6.0), pytest.approx(1 / 36), True)
    assert found.critical_difference == pytest.approx(2.343 * np.sqrt(12 / 18), abs=1e-3)
    tied = rank_arms([[0.9] * 3] * 3)
    assert (tied.statistic, tied.p, tied.mean_ranks) == (0.0, 1.0, (2.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("arms", "sets", "studies"), [(3, 3, 200), (4, 3, 100), pytest.param(3, 8, 60, marks=pytest.mark.slow)]
)
def test_family_wise_error_without_a_difference(arms, sets, studies):
    """Friedman's test, then any pair further apart than the critical difference."""
    rng = np.random.default_rng(2)
    found = [rank_arms(rng.random((arms, sets))) for _ in range(studies)]
    claims = [one.p < 0.05 and max(one.mean_ranks) - min(one.mean_ranks) > one.critical_difference for one in found]
    assert np.mean(claims) <= 0.08


def test_the_sheet_has_differences_ranks_and_the_verdict():
    table = compare(cells(4), Question())
    shown = checked(table)
    assert [heading.label for heading in shown.headings] == [
        "head", "heads", "Δ set0", "Δ set1", "Δ set2", "Δ set3", "mean rank",
    ]  # fmt: skip
    assert [row[-1].number for row in shown.rows] == [3.0, 2.0, 1.0]
    row = next(row for row in table.rows if row.head == "ga" and row.axes == ("set1",))
    assert (
        shown.rows[1][3].number == pytest.approx(100 * row.difference.mean) and shown.rows[1][3].bold == row.is_better
    )
    notes = " ".join(shown.notes())
    assert "Friedman's test over 4 data sets: chi-squared = 8.00, p = 0.00463 (exact permutation" in notes
    assert "Nemenyi: two arms differ (family-wise 0.05) if their mean ranks differ by more than 1.66." in notes
    assert "Over data sets" in on_screen(table)
    assert "Holm) over 8 planned differences" in " ".join(note.text for note in table.footnotes)  # over all sets


@pytest.mark.parametrize(("sets", "heads"), [(2, ("seqpool", "ga", "gap")), (3, ("seqpool", "ga"))])
def test_too_few_are_refused_with_their_numbers(sets, heads):
    table = compare(cells(sets, heads), Question())
    why = f"Friedman's test needs at least 3 data sets and 3 arms, found {sets} data sets and {len(heads)} arms"
    assert f"UNDECIDED over data sets: {why}." in sheet(table).notes()
    with pytest.raises(UserError, match=why):
        checked(table)


def test_one_data_set_has_no_such_table():
    table = compare([made_cell("ga", [0.8, 0.9, 0.85])], Question())
    assert "Over data sets" not in on_screen(table)
    with pytest.raises(UserError, match="--over dataset: Friedman's test needs at least 3 data sets, found 1"):
        checked(table)


def test_seeds_that_are_missing_leave_the_test_out():
    table = compare(
        [*cells(3)[:-1], made_cell("gap", [0.9, 0.9, RunState.failed], parameters={"dataset.name": "set2"})], Question()
    )
    with pytest.raises(UserError, match="with all its seeds, found 1 incomplete cells"):
        checked(table)


def test_without_a_significant_rank_no_arm_is_claimed_to_differ():
    notes = " ".join(sheet(compare(cells(3, gain=0.0), Question())).notes())
    assert "is not significant: no arm is claimed to differ" in notes and "Nemenyi" not in notes
