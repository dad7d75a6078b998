"""What the table withholds, the tables below it, the Pareto front and single runs do not claim either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from made_arms import LR, made_setting
from made_cells import made_cell
from rendering import as_markdown

from headsweep.errors import UserError
from headsweep.report.html.figures.tradeoff import tradeoff
from headsweep.report.html.selection import select
from headsweep.report.read.cells import Cell, read_cells
from headsweep.report.request import Request
from headsweep.report.table import heads_effect, over_datasets
from headsweep.report.table.build import compare
from headsweep.report.table.model import Question

SURE = {1: [0.80, 0.81, 0.805], 4: [0.83, 0.841, 0.834], 8: [0.86, 0.872, 0.864]}
RISING = {1: [0.80, 0.81, 0.805], 4: [0.84, 0.871, 0.834], 8: [0.89, 0.952, 0.894]}


def costing(cell: Cell, parameters: int) -> Cell:
    runs = [replace(run, record=replace(run.record, cost={"parameters": parameters})) for run in cell.runs]
    return replace(cell, runs=tuple(runs))


def ladder(tops: Mapping[int, list[float]] = SURE, **parameters: float) -> list[Cell]:
    """More heads cost more and are better."""
    return [
        costing(made_cell("seqpool", values, count, parameters=parameters), 1000 * count)
        for count, values in tops.items()
    ]


def over_sets(**parameters: float) -> list[Cell]:
    """Three heads on three data sets, in the same order on each."""
    return [
        made_cell(head, [top1, top1 + 0.011, top1 + noise], parameters={"dataset.name": name, **parameters})
        for name in ("a", "b", "c")
        for head, top1, noise in (("seqpool", 0.8, 0.004), ("ga", 0.9, 0.005), ("gap", 0.7, 0.003))
    ]


def rings(cells: list[Cell], question: Question) -> str:
    table = compare(cells, question)
    figure = tradeoff(table, select(table), "parameters")
    assert figure is not None
    return figure.caption


def test_settings_that_were_not_chosen_support_no_slope_and_no_ring():
    assert heads_effect.effects(compare(ladder(), Question()))[0].undecided is None
    assert "Ringed" in rings(ladder(), Question())
    both = [*ladder(**{LR: 0.1}), *ladder(**{LR: 0.2})]
    table = compare(both, Question())
    assert "no p is shown" in as_markdown(table)
    assert [row[-1].text for row in heads_effect.sheet(table).rows] == ["undecided"] * 2
    caption = rings(both, Question())
    assert "Ringed" not in caption and "not tested (setting not chosen on validation images)" in caption


def test_settings_that_were_not_chosen_support_no_rank():
    assert len(over_datasets.checked(compare(over_sets(), Question())).rows) == 3
    table = compare([*over_sets(**{LR: 0.1}), *over_sets(**{LR: 0.2})], Question())
    with pytest.raises(UserError, match="needs arms that are tuned alike, found: setting not chosen"):
        over_datasets.checked(table)


def test_settings_that_were_not_chosen_have_no_p_of_single_runs(make_run):
    folders = [make_run(head, 1, 0, 0.9, optimizer__lr=lr) for head in ("seqpool", "ga") for lr in (0.1, 0.2)]
    for folder, share in zip(folders, (0.5, 0.5, 0.9, 0.9), strict=True):
        np.save(folder.correct, np.arange(100) < 100 * share)
    one = compare(read_cells(folders[::2]), Question())
    assert one.rows[1].mcnemar_p is not None
    table = compare(read_cells(folders), Question(columns=("p_mcnemar",)))
    assert "NOT TUNED" in as_markdown(table) and "such a pair" not in as_markdown(table)
    assert not any(row.mcnemar_p for row in table.rows)


@pytest.mark.parametrize("lost", ["a seed", "a cell"])
def test_lost_runs_support_no_more_than_they_would(lost):
    """A run whose folder was removed may have been the worst of its cell, or of a comparison of its own."""
    cells = ladder(RISING)
    whole = heads_effect.sheet(compare(cells, Question())).rows[0][-1].number
    assert whole is not None
    if lost == "a seed":
        cells = ladder()[::2]  # 1 and 8 heads
        cells[-1] = replace(cells[-1], runs=cells[-1].runs[:2])
        table = compare(cells, Question(missing=1))
        assert heads_effect.effects(table)[0].undecided == "seed 2 missing with 8 heads"
        assert "Ringed" not in rings(cells, Question(missing=1))
    else:
        corrected = heads_effect.sheet(compare(cells, Question(missing=3))).rows[0][-1].number
        assert corrected == pytest.approx(4 * whole)
    sets = over_sets()
    with pytest.raises(UserError, match="with all its seeds, found 1 incomplete cells"):
        over_datasets.checked(compare([*sets[:-1], replace(sets[-1], runs=sets[-1].runs[:2])], Question(missing=1)))


@pytest.mark.parametrize("metric", ["val_top1", "val_top1_last3", "val_top1_best"])
def test_no_metric_of_the_validation_images_is_reported_for_a_choice_by_them(metric):
    cells = [made_setting(head, 0.8, 0.7 + rate, optimizer__lr=rate) for head in ("gap", "ga") for rate in (0.1, 0.2)]
    with pytest.raises(UserError, match=f"SELECTED ON THE REPORTED IMAGES: {metric} is of the images that choose"):
        compare(cells, Question(metric=metric, tune=(LR,)))


@pytest.mark.parametrize("over", ["heads", "dataset"])
def test_a_table_over_an_axis_keeps_the_warnings_and_explains_bold(over):
    query = "tags.`headsweep.state` = 'finished'"
    table = compare(ladder() if over == "heads" else over_sets(), Question(query=query))
    notes = Request("pilot", over=over).sheet(table).notes()
    assert any("SELECTED BY RESULT" in note for note in notes) and any(query in note for note in notes)
    assert any(note.startswith("Bold: better") for note in notes) is (over == "dataset")
    assert over == "heads" or any("(n = 3)" in note for note in notes)


@pytest.mark.parametrize(
    ("query", "is_by_result"),
    [
        ("metrics.`test/top1` > 0.5", True),
        ("attributes.status = 'FINISHED'", True),
        ("status = 'FINISHED'", True),
        ("end_time > 0", True),
        ("tags.`headsweep.nonfinite` = ''", True),
        ("params.`head.name` = 'ga'", False),
        ("tags.`headsweep.sweep` = 'pilot'", False),
    ],
)
def test_a_filter_on_results_is_named(query, is_by_result):
    notes = as_markdown(compare(ladder(), Question(query=query)))
    assert ("SELECTED BY RESULT" in notes) is is_by_result
    assert "counted nowhere, neither as missing nor in the correction of p" in notes
