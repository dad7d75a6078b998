"""A difference with too few seeds, or with seeds that failed, supports no claim, whatever its p."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_cells import made_cell
from rendering import as_csv, as_markdown, on_screen

from headsweep.report.read.cells import Cell
from headsweep.report.table.build import compare
from headsweep.report.table.model import Question, Row, Table
from headsweep.tracking.design import Margin
from headsweep.tracking.run_record import RunState

SEQPOOL = [0.801, 0.803, 0.799, 0.802, 0.800]
GA = [0.825, 0.8245, 0.8216]  # p = 0.003 over the seeds that are left


def compared(*cells: Cell, **options) -> tuple[Table, Row]:
    table = compare(cells, Question(**options))
    return table, next(row for row in table.rows if row.difference)


@pytest.mark.parametrize("state", [RunState.diverged, RunState.failed])
def test_a_cell_whose_seeds_failed_is_not_bold_by_its_survivors(state):
    table, row = compared(made_cell("seqpool", SEQPOOL), made_cell("ga", [*GA, state, state]))
    assert row.difference.p < 0.005 and row.difference.mean > 0.02
    assert (row.failed, row.planned, row.undecided, row.p, row.is_better) == (2, 5, "2 of 5 seeds failed", None, False)
    text = as_markdown(table)
    assert "**" not in text
    assert "| failed |" in text and "| 3/5 | 2/5 |" in text and "| undecided |" in text
    assert "UNDECIDED, shown without bold and without p: 2 of 5 seeds failed: head=ga heads=1." in text
    assert [one["undecided"] for one in as_csv(table)] == ["", "2 of 5 seeds failed", ""]


def test_a_baseline_whose_seeds_failed_takes_the_bold_of_every_row():
    seqpool = [*SEQPOOL[:3], RunState.diverged]
    table = compare([made_cell("seqpool", seqpool), made_cell("ga", [*GA, 0.82])], Question())
    assert table.rows[0].failed == 1
    row = table.rows[-1]
    assert (row.undecided, row.is_better) == ("1 of 4 seeds failed (baseline)", False)


def test_a_failed_seed_costs_the_other_rows_no_claim():
    better = made_cell("gap", [one + 0.02 + at / 5000 for at, one in enumerate(SEQPOOL)])
    table = compare([made_cell("seqpool", SEQPOOL), made_cell("ga", [*GA, RunState.failed]), better], Question())
    assert [(row.head, row.is_better) for row in table.rows if row.difference] == [("ga", False), ("gap", True)]
    assert table.rows[-1].p == pytest.approx(2 * table.rows[-1].difference.p)  # the family has both


def test_two_seeds_are_never_bold():
    table, row = compared(made_cell("seqpool", [0.80, 0.81]), made_cell("ga", [0.90, 0.9101]))
    assert row.difference.p < 0.001
    assert (row.undecided, row.p, row.is_better) == ("2 seeds", None, False)
    text = as_markdown(table)
    assert "**" not in text and "UNDECIDED, shown without bold and without p: 2 seeds: head=ga heads=1." in text
    assert "undecided" in on_screen(table, 100)
    assert "failed" not in as_markdown(table).splitlines()[0]


def test_two_common_seeds_of_five_are_not_bold_either():
    _, row = compared(made_cell("seqpool", SEQPOOL), made_cell("ga", [0.9, 0.902, 0.9, 0.91], first_seed=3))
    assert (row.difference.n, row.undecided) == (2, "2 seeds")


@pytest.mark.parametrize("state", [RunState.new, RunState.partial, RunState.running])
def test_an_unfinished_cell_is_preliminary_but_has_not_failed(state):
    """Reading a table while runs are training is testing more than once."""
    table, row = compared(made_cell("seqpool", SEQPOOL), made_cell("ga", [*GA, state, state]))
    assert (row.failed, row.undecided, row.is_better) == (0, "2 of 5 seeds not finished", False)
    assert "failed" not in as_markdown(table).splitlines()[0]
    _, row = compared(made_cell("seqpool", [*SEQPOOL, state]), made_cell("ga", [*GA, 0.82, 0.821]))
    assert row.undecided == "1 of 6 seeds not finished (baseline)"


def test_one_seed_and_equal_differences_are_undecided_and_explained_once():
    table, row = compared(made_cell("seqpool", [0.8]), made_cell("ga", [0.9]))
    assert row.undecided == "1 seed" and "UNDECIDED" not in as_markdown(table)
    table, row = compared(made_cell("seqpool", SEQPOOL), made_cell("ga", [one + 0.01 for one in SEQPOOL]))
    assert row.undecided == "the same difference for all seeds" and "UNDECIDED" not in as_markdown(table)
    assert "its spread cannot be estimated: no interval and no p" in as_markdown(table)


def test_no_common_seed_is_undecided():
    table = compare([made_cell("seqpool", SEQPOOL), made_cell("ga", GA, first_seed=7)], Question())
    assert (table.rows[1].undecided, table.rows[1].difference) == ("no common seed", None)


def test_a_seed_whose_folder_was_removed_takes_the_bold_away():
    cells = [made_cell("seqpool", SEQPOOL), made_cell("ga", GA)]
    assert compared(*cells)[1].undecided is None  # all that was planned
    assert compared(*cells, missing=2)[1].undecided == "seeds 3-4 missing"


def test_a_run_without_the_metric_takes_the_bold_away():
    ga = made_cell("ga", [*GA, 0.82])
    without = replace(ga.runs[-1], result=replace(ga.runs[-1].result, metrics={}))
    _, row = compared(made_cell("seqpool", SEQPOOL), Cell((*ga.runs[:-1], without)))
    assert row.undecided == "1 of 4 seeds without a value"


def test_reasons_are_listed_once_and_many_rows_are_counted():
    cells = [made_cell("seqpool", SEQPOOL[:2]), *(made_cell(f"h{at}", GA[:2]) for at in range(7))]
    assert "without p: 2 seeds: all rows." in as_markdown(compare(cells, Question()))
    cells = [made_cell("seqpool", SEQPOOL), *(made_cell(f"h{at}", GA[:2]) for at in range(7)), made_cell("ga", SEQPOOL)]
    text = as_markdown(compare(cells, Question()))
    assert "head=h4 heads=1 and 2 more rows; the same" not in text and "head=h4 heads=1 and 2 more rows." in text


@pytest.mark.parametrize("margin", [None, Margin(0.5)])
def test_a_cell_without_a_finished_seed_is_undecided(margin):
    states = [RunState.failed, RunState.diverged, RunState.failed]
    cells = [made_cell("seqpool", SEQPOOL[:3]), made_cell("ga", states), made_cell("gap", [RunState.new] * 3)]
    table = compare(cells, Question(margin=margin))
    assert [row.undecided for row in table.rows if row.head == "ga"] == ["3 of 3 seeds failed", None]
    assert table.rows[-1].undecided is None
    assert ("undecided (3 of 3 seeds failed)" in as_markdown(table)) is (margin is not None)
