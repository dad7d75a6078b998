"""The effect of the number of heads within a head: differences from the smallest number, slope per doubling."""

from __future__ import annotations

import numpy as np
import pytest
from made_cells import made_cell
from rendering import on_screen
from scipy import stats

from headsweep.errors import UserError
from headsweep.report.formats import files, markdown
from headsweep.report.stats.slope import mean_slope, slopes_per_doubling
from headsweep.report.table.build import compare
from headsweep.report.table.heads_effect import effects, sheet
from headsweep.report.table.model import Question
from headsweep.tracking.run_record import RunState

RNG = np.random.default_rng(0)
VALUES = {count: RNG.normal(0.8 + 0.005 * np.log2(count), 0.003, 5) for count in (1, 4, 8)}


def table(*more, values=VALUES, head="seqpool"):
    return compare([*(made_cell(head, list(tops), count) for count, tops in values.items()), *more], Question())


def test_slopes_are_those_of_a_regression_for_each_seed():
    values = {count: dict(enumerate(tops)) for count, tops in VALUES.items()}
    by_scipy = [stats.linregress([0, 2, 3], [VALUES[count][seed] for count in (1, 4, 8)]).slope for seed in range(5)]
    assert list(slopes_per_doubling(values).values()) == pytest.approx(by_scipy, abs=1e-14)
    found = mean_slope(values)
    test = stats.ttest_1samp(by_scipy, 0)
    assert (found.mean, found.p) == pytest.approx((np.mean(by_scipy), test.pvalue), rel=1e-9)
    low, high = test.confidence_interval()
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-9)


def test_differences_are_paired_and_p_is_corrected_over_the_slopes():
    flat = {count: RNG.normal(0.8, 0.003, 5) for count in (1, 4, 8)}
    both = table(*(made_cell("ga", list(tops), count) for count, tops in flat.items()))
    rising, level = effects(both)
    assert rising.differences[8].mean == pytest.approx(float(np.mean(VALUES[8] - VALUES[1])), abs=1e-12)
    shown = sheet(both)
    assert [heading.label for heading in shown.headings] == [
        "head",
        "Δ 4 heads",
        "Δ 8 heads",
        "slope/doubling",
        "n",
        "p",
    ]
    assert shown.rows[0][-1].number == pytest.approx(min(1, 2 * rising.slope.p), rel=1e-9)
    assert shown.rows[1][-1].number == pytest.approx(max(level.slope.p, min(1, 2 * rising.slope.p)), rel=1e-9)
    assert any("corrected (Holm) over 2 slopes" in note for note in shown.notes())


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ([0.84, 0.85], "2 seeds"),
        ([0.84, 0.85, 0.84, RunState.diverged], "1 of 4 seeds failed with 8 heads"),
        ([0.84, 0.85, 0.84, RunState.running], "1 of 4 seeds not finished with 8 heads"),
        ([0.84], "1 seed"),
    ],
)
def test_thin_data_is_undecided(last, why):
    found = table(values={1: [0.80, 0.81, 0.805, 0.802], 8: last})
    assert effects(found)[0].undecided == why
    shown = sheet(found)
    assert shown.rows[0][-1].text in ("undecided", "—") and shown.rows[0][-1].number is None
    assert f"UNDECIDED: head=seqpool ({why})." in shown.notes()


def test_many_undecided_rows_are_not_all_named():
    thin = [made_cell("ga", [0.8, 0.9], heads, parameters={"model.width": at}) for heads in (1, 4) for at in range(9)]
    assert "UNDECIDED: all rows (2 seeds)." in sheet(compare(thin, Question())).notes()


def test_a_number_of_heads_without_a_result_leaves_the_others():
    found = table(made_cell("seqpool", [RunState.failed] * 5, 16))
    assert effects(found)[0].undecided == "5 of 5 seeds failed with 16 heads"
    assert list(effects(found)[0].differences) == [4, 8]


def test_it_is_below_the_table_where_a_head_has_several_numbers(tmp_path):
    found = table()
    assert "Effect of the number of heads" in on_screen(found)
    files.write(found, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert f"\n\nEffect of the number of heads\n\n{markdown.write(sheet(found))}" in text
    one = compare([made_cell("ga", [0.8, 0.81])], Question())
    assert "Effect of" not in on_screen(one)
    with pytest.raises(UserError, match="--over heads: expected a head with at least 2 numbers of heads, found none"):
        sheet(one)
