"""The tuning curves of a report: of the arms of its table, and ending with the numbers of the table."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from made import run, table_of

from headsweep.report.html.drawing import draw
from headsweep.report.html.figures.tuning import curve, tuning
from headsweep.report.html.selection import select
from headsweep.report.read.cells import Run
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Table

RATES = (1e-4, 1e-3, 1e-2)


def tuned_runs(heads: tuple[int, ...] = (1,)) -> list[Run]:
    """The best rate on validation images is neither the best on test images nor the same for both heads."""
    val = {"seqpool": (0.5, 0.8, 0.7), "ga": (0.6, 0.7, 0.9)}
    test = {"seqpool": (0.5, 0.7, 0.9), "ga": (0.6, 0.65, 0.8)}
    return [
        run(head, count, seed, test[head][at] + seed / 100, lr, metrics={"val/top1": val[head][at] - seed / 100})
        for head in val
        for count in heads
        for at, lr in enumerate(RATES)
        for seed in range(3)
    ]


def tuned(runs: list[Run]) -> Table:
    return table_of(runs, tune=("optimizer.lr",), mark=True)


def test_each_arm_is_a_line_that_ends_with_its_number_in_the_table():
    table = tuned(tuned_runs())
    (figure,) = tuning(table, select(table))
    assert figure.name == "tuning-curves-1"
    assert all(f">{head}</text>" in draw(figure).svg for head in ("seqpool", "ga"))
    for row in table.rows:
        last = next(mark for mark in figure.marks if mark.text.startswith(f"{row.head}, 3 of 3 settings"))
        assert last.y == pytest.approx(100 * row.compared.mean) and last.text.endswith(f": {last.y:.2f} %")
    assert "best validation top-1 chosen" in figure.caption and "optimizer.lr" in figure.caption
    assert figure.alt.startswith("seqpool: 71.00 % after 1, 71.00 % after 3; ga: 69.33 % after 1, 81.00 % after 3")


def test_a_curve_is_the_mean_over_all_subsets_of_the_means_over_seeds():
    table = tuned(tuned_runs())
    for arm in table.arms:
        val, test = (
            [math.fsum(getattr(setting, name).values()) / 3 for setting in arm.settings] for name in ("val", "test")
        )
        for k, value in curve(arm, METRICS["top1"]):
            subsets = list(combinations(range(3), k))
            expected = math.fsum(test[max(subset, key=lambda at: val[at])] for subset in subsets) / len(subsets)
            assert value == pytest.approx(100 * expected, abs=1e-10)


def test_a_setting_that_diverged_is_never_chosen_and_the_curve_starts_where_it_cannot_be_alone():
    runs = tuned_runs()
    runs[0] = run("seqpool", 1, 0, 0.99, RATES[0], state="diverged")
    table = tuned(runs)
    seqpool, ga = table.arms
    assert [k for k, _ in curve(seqpool, METRICS["top1"])] == [2, 3] and [k for k, _ in curve(ga, METRICS["top1"])] == [
        1,
        2,
        3,
    ]
    assert max(value for _, value in curve(seqpool, METRICS["top1"])) < 92


@pytest.mark.usefixtures("undrawn")
def test_each_number_of_heads_has_a_figure_and_the_section_is_there_only_with_tuned_arms(write_page):
    runs = tuned_runs((1, 4))
    table = tuned(runs)
    assert [figure.name for figure in tuning(table, select(table))] == ["tuning-curves-1", "tuning-curves-4"]
    assert 'id="tuning"' in write_page(runs, tune=("optimizer.lr",))
    assert 'id="tuning"' not in write_page(runs[:3])


@pytest.mark.usefixtures("undrawn")
def test_lines_and_cells_are_named_without_the_chosen_setting(write_page):
    table = tuned(tuned_runs((1, 4)))
    assert [one.label for one in select(table).series] == ["seqpool", "ga"]
    page = write_page(tuned_runs(), tune=("optimizer.lr",))
    assert "ga, 1 head: " in page and "lr 0.01" not in page.split('id="notes"')[0].split('id="differences"')[1]
