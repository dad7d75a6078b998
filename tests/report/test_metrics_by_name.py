"""Metrics beside top-1: lower is better where it is, in every decision of a table and of a report."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_cells import made_cell

from headsweep.report.formats import csv
from headsweep.report.html.figures.tradeoff import tradeoff
from headsweep.report.html.figures.tuning import curve
from headsweep.report.html.selection import select
from headsweep.report.html.verdict import verdict
from headsweep.report.read.cells import Cell
from headsweep.report.table.build import compare
from headsweep.report.table.columns import MINUS
from headsweep.report.table.layout import flat
from headsweep.report.table.metrics import METRICS, measure_of, validation_metric
from headsweep.report.table.model import Question
from headsweep.report.table.over_datasets import sheet
from headsweep.tracking.design import Margin

LOSSES = {"gap": [0.5, 0.51, 0.52], "low": [0.4, 0.412, 0.418], "high": [0.6, 0.613, 0.618]}


def logging(cell: Cell, name: str, values: list[float]) -> Cell:
    """The cell with one more logged metric, its value for each seed."""
    runs = []
    for run, value in zip(cell.runs, values, strict=True):
        assert run.result is not None
        runs.append(replace(run, result=replace(run.result, metrics={**run.result.metrics, name: value})))
    return Cell(tuple(runs))


def cells(name: str = "test/loss", values: dict[str, list[float]] = LOSSES, **options) -> list[Cell]:
    return [logging(made_cell(head, [0.8, 0.8, 0.8], **options), name, of_head) for head, of_head in values.items()]


def test_a_lower_loss_is_better():
    table = compare(cells(), Question(metric="log_loss", margin=Margin(0.05)))
    _, low, high = table.rows
    assert low.difference.mean == pytest.approx(-0.1) and low.is_better and low.verdict.text == "better"
    assert not high.is_better and high.verdict.text == "worse"
    assert low.superiority.probability == 1 and high.superiority.probability == 0
    text = str(flat(table))
    assert "0.4100 ± 0.0228" in text and f"{MINUS}0.1000" in text
    assert "in nats, paired by seed" in text and "within ±0.05 nats" in text and "below +0.05 nats" in text
    assert "percentage points" not in text


def test_the_verdict_of_a_report_is_in_nats():
    body = verdict(compare(cells(), Question(metric="log_loss", margin=Margin(0.05)))).body
    assert "in test log loss at a margin of ±0.05 nats: 1 better, 1 worse" in body
    assert f"low, 1 head: {MINUS}0.1000 ± 0.0050 nats" in body and "points" not in body


def test_not_worse_is_a_loss_that_is_not_higher_by_the_margin():
    values = {
        "gap": [0.5, 0.5, 0.5, 0.5, 0.5],
        "near": [0.5, 0.48, 0.505, 0.46, 0.5],
        "far": [0.5, 0.52, 0.495, 0.54, 0.5],
    }
    made = [logging(made_cell(head, [0.8] * 5), "test/loss", of_head) for head, of_head in values.items()]
    _, near, far = compare(made, Question(metric="log_loss", margin=Margin(0.02))).rows
    assert near.verdict.text == "not worse" and far.verdict.text == "undecided"


def test_the_unit_of_csv_is_that_of_the_metric():
    lines = csv.write(compare(cells(), Question(metric="log_loss", margin=Margin(0.05)))).splitlines()
    names, first = lines[0].split(","), lines[1].split(",")
    assert first[names.index("margin")] == "0.05" and float(first[names.index("log_loss_mean")]) == pytest.approx(0.51)


def test_shares_are_shown_in_percent():
    values = {"gap": [0.9, 0.91, 0.92], "ga": [0.95, 0.96, 0.961]}
    table = compare(cells("test/auroc", values), Question(metric="auroc"))
    assert "91.00 ± 2.48" in str(flat(table)) and "AUROC %" in str(flat(table))
    assert "binomial" not in str(table.footnotes)


def test_the_best_epoch_has_the_lowest_loss():
    best = METRICS["val_log_loss_best"]
    (cell,) = cells(values={"gap": [0.5, 0.5, 0.5]})
    run = replace(cell.runs[0], history=lambda name: {1: 0.9, 2: 0.3, 3: 0.5} if name == "val/loss" else {})
    broken = replace(run, history=lambda name: {1: math.nan, 2: 0.4, 3: math.inf, 4: 0.3} if name == "val/loss" else {})
    assert (
        best.of(run) == best.of(broken) == 0.3
        and METRICS["val_top1_best"].of(replace(run, history=lambda _: {1: 0.2, 2: 0.7})) == 0.7
    )


def tuned(losses: dict[float, list[float]]) -> list[Cell]:
    """Settings of one arm, with validation and test losses."""
    found = []
    for lr, values in losses.items():
        cell = logging(made_cell("gap", [0.5] * 3, parameters={"optimizer.lr": lr}), "val/loss", values)
        found.append(logging(cell, "test/loss", values))
    return found


def test_the_setting_with_the_lowest_validation_loss_is_chosen():
    losses = {1e-3: [0.5, 0.5, 0.5], 3e-3: [0.2, 0.3, 0.25], 1e-2: [0.9, 0.9, 0.9]}
    question = Question(metric="log_loss", tune=("optimizer.lr",), axes=("optimizer.lr",))
    table = compare(tuned(losses), question)
    assert [row.axes for row in table.rows] == [("0.003",)]
    assert curve(table.arms[0], METRICS["log_loss"])[-1] == (3, pytest.approx(0.25))


def test_the_lowest_loss_has_rank_1_over_data_sets():
    made = []
    for number in range(3):
        shown = {"dataset.name": f"set{number}"}
        for head, values in LOSSES.items():
            made.append(logging(made_cell(head, [0.8] * 3, parameters=shown), "test/loss", values))
    rows = sheet(compare(made, Question(metric="log_loss"))).rows
    assert {row[0].text: row[-1].text for row in rows} == {"gap": "2.00", "low": "1.00", "high": "3.00"}


def test_the_front_has_the_lowest_loss():
    made = []
    for cost, cell in enumerate(cells(), start=1):
        record = replace(cell.runs[0].record, cost={"parameters": 100.0 * cost})
        made.append(Cell(tuple(replace(run, record=replace(record, seed=run.record.seed)) for run in cell.runs)))
    table = compare(made, Question(metric="log_loss"))
    figure = tradeoff(table, select(table), "parameters")
    assert figure is not None and figure.title == "Log loss against parameters"
    assert "gap" in figure.alt and "low" in figure.alt and "high" not in figure.alt


@pytest.mark.parametrize("name", METRICS)
def test_settings_are_chosen_by_the_same_measure_on_validation_images(name):
    chosen = validation_metric(name)
    assert chosen.name == f"val_{measure_of(name)}" and chosen.sign == METRICS[name].sign
    assert chosen.logged_as.startswith("val/") and measure_of(name) in name


def test_runs_of_earlier_versions_are_named_where_others_have_the_metric():
    values = {"gap": [0.9, 0.91, math.nan], "ga": [0.95, 0.96, 0.97]}
    made = [logging(cell, "test/loss", [0.1] * 3) for cell in cells("test/auroc", values)]
    old = logging(made_cell("old", [0.8] * 3), "test/loss", [0.1] * 3)
    notes = str(compare([*made, old], Question(metric="auroc")).footnotes)
    assert "4 finished runs without a finite AUROC, not counted in n (3 have no test/auroc: trained by" in notes
