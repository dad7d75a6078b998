"""The verdict of a page: counts by verdict, and each cell with its numbers or the reason why nothing is claimed."""

from __future__ import annotations

from dataclasses import replace

from made import run, table_of

from headsweep.report.html.figures.differences import differences
from headsweep.report.html.selection import select
from headsweep.report.html.verdict import MOST_NAMED, verdict
from headsweep.report.stats.crossed import CrossedEstimate
from headsweep.report.table.build import compare
from headsweep.report.table.columns import MINUS
from headsweep.report.table.model import Question, Table
from headsweep.tracking.design import Margin

GAINS = {"seqpool": 0.0, "ga": 0.03, "se": -0.03, "gap": 0.001}
NOISE = ((0, 0, 0), (0.001, -0.001, 0), (0, 0.001, -0.001), (0.001, 0, -0.001))


def compared(seeds: int = 3, **question) -> Table:
    return table_of(
        [
            run(head, 1, seed, 0.8 + gain + noise[seed])
            for (head, gain), noise in zip(GAINS.items(), NOISE, strict=True)
            for seed in range(seeds)
        ],
        **question,
    )


def test_cells_are_counted_and_listed_by_verdict_with_their_numbers():
    body = verdict(compared()).body
    assert "compared with the baseline (head=seqpool with the same number of heads) in test top-1" in body
    assert "Of 3 cells" in body and ": 1 better, 1 worse, 1 undecided" in body
    assert "(paired t-tests over 3 seeds, p &lt; 0.05 after Holm&#x27;s correction)" in body
    better, worse, undecided = body.split("<h3>")[1:]
    assert "<li>ga, 1 head: +3.00 ± 0.25 points, p 0.001, n = 3</li>" in better
    assert f"<li>se, 1 head: {MINUS}3.00 ± 0.25 points, p 0.001, n = 3</li>" in worse
    assert "<li>gap, 1 head: +0.10 ± 0.25 points, p 0.225, n = 3</li>" in undecided


def test_a_baseline_that_is_no_head_is_named():
    table = table_of([run("ga", heads, seed, 0.8 + heads / 100) for heads in (1, 4) for seed in range(3)])
    table = compare(table.cells, Question({"heads": "1"}))
    assert "Of 1 cell compared with the baseline (heads=1) in test top-1" in verdict(table).body
    figure = differences(table, select(table))
    assert figure is not None and "Differences from the baseline (heads=1), paired by seed" in figure.caption


def test_at_a_margin_the_claims_are_those_of_the_table_and_the_margin_is_named():
    table = compared(margin=Margin(1))
    body = verdict(table).body
    assert "in test top-1 at a margin of ±1 points: 1 better, 1 equivalent, 1 worse (" in body
    assert [row.verdict.text for row in table.rows if row.verdict] == ["better", "worse", "equivalent"]


def test_the_number_of_test_images_is_in_the_sentence():
    table = compared()
    rows = tuple(replace(row, estimate_over_images=CrossedEstimate(0.8, 0.01, 3, 360)) for row in table.rows)
    assert "over 3 seeds and 360 test images" in verdict(replace(table, rows=rows)).body


def test_what_is_too_thin_is_undecided_with_its_reason():
    body = verdict(compared(seeds=2)).body
    assert "3 undecided" in body and body.count("(2 seeds)</li>") == 3 and "p undecided" not in body


def test_of_many_cells_some_are_named():
    heads = range(2 * MOST_NAMED)
    table = table_of([run(f"head{head}", 1, seed, 0.8) for head in heads for seed in range(3)])
    body = verdict(table).body
    assert body.count("<li>head") == MOST_NAMED and f"and {MOST_NAMED - 1} more, in the table" in body
