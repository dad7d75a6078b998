"""Every number has its n and every comparison its baseline, whatever columns are shown, in each format."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_cells import made_cell

from headsweep.report.formats import html, latex, markdown
from headsweep.report.read.cells import Cell
from headsweep.report.table.build import compare
from headsweep.report.table.layout import flat
from headsweep.report.table.model import Question, Table
from headsweep.tracking.design import Margin

SEQPOOL = [0.90, 0.91, 0.89, 0.905, 0.90]
GA = [0.925, 0.931, 0.921, 0.926, 0.928]


def cells(*more: float) -> list[Cell]:
    """Two heads; ga has the seeds `more` besides, and no AUROC for its last two."""
    made = [made_cell("seqpool", SEQPOOL), made_cell("ga", [*GA, *more])]
    runs = [
        replace(run, result=replace(run.result, metrics={**run.result.metrics, "test/auroc": value}))
        for run, value in zip(made[1].runs, [0.9, 0.91, 0.92, *[math.nan] * (2 + len(more))], strict=True)
    ]
    return [made[0], Cell(tuple(runs))]


def shown(table: Table, *columns: str) -> str:
    return markdown.write(flat(table, columns))


def asked(*columns: str, more: tuple[float, ...] = (), **options: object) -> Table:
    return compare(cells(*more), Question(columns=columns, **options))


def test_a_metric_that_some_seeds_lack_has_its_own_n():
    text = shown(asked("n", "top1", "auroc"), "n", "top1", "auroc")
    assert "| 5 | **92.62 ± 0.46** | 91.00 ± 2.48 (n=3) |" in text
    assert "A metric with its own n covers only the seeds that have a value of it." in text
    assert "own n" not in shown(asked("n", "top1"), "n", "top1")


@pytest.mark.parametrize(("more", "n"), [((), "is 5."), ((0.93,), "is 5 to 6 (column n).")])
def test_without_the_column_a_footnote_has_n(more, n):
    assert f"the number of seeds in the mean, {n}" in shown(asked("top1", more=more), "top1")
    assert "n is the number of seeds in the mean." in shown(asked("n", "top1", more=more), "n", "top1")


@pytest.mark.parametrize("write", [markdown.write, html.write, latex.write])
def test_each_format_has_the_own_n_of_a_difference(write):
    columns = ("n", "difference", "p_better")
    text = write(flat(asked(*columns, more=(0.93,)), columns))
    assert text.count("(n=5)") == (3 if write is latex.write else 2), "and LaTeX has room for it"


@pytest.mark.parametrize(
    ("column", "correction"),
    [
        ("difference", "The confidence interval of a difference is not corrected for multiple comparisons."),
        ("p", "corrected for multiple comparisons (Holm) over 1 planned difference."),
        ("p_sign_flip", "p sign-flip is that of a sign-flip permutation test, corrected as p is."),
        ("p_better", "(Clopper and Pearson), not corrected for multiple comparisons;"),
        ("verdict", "corrected (Holm) over 1 planned difference."),
    ],
)
def test_each_comparison_has_its_correction(column, correction):
    assert correction in shown(asked(column, margin=Margin(1.0)), column)


@pytest.mark.parametrize("column", ["difference_images", "p_better", "verdict", "flags", "difference", "p"])
def test_a_comparison_names_its_baseline(column):
    question = asked(column, baseline={"head": "seqpool"}, margin=Margin(1.0))
    assert "head=seqpool, and otherwise the same configuration" in shown(question, column)
