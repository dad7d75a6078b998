"""Rows that do not match their baseline in size, compute, training or tuning are flagged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from headsweep.report.read.axes import varying_axes
from headsweep.report.read.cells import read_cells
from headsweep.report.table.baseline import baselines
from headsweep.report.table.notes.fairness import footnotes, mismatches


def flags(folders, baseline="seqpool", **options):
    cells = read_cells(folders)
    found = mismatches(cells, baselines(cells, varying_axes(cells), {"head": baseline}), **options)
    return {cell.head: list(map(str, flags)) for cell, flags in zip(cells, found, strict=True)}, found


def costing(folder, **cost):
    folder.write_cost(folder.record().cost | cost)
    return folder


def trained(folder, **numbers):
    folder.finish(replace(folder.result(), **numbers))
    return folder


def test_rows_within_the_tolerance_have_no_flag(make_run):
    runs = [make_run("seqpool", 1, 0, 0.8), costing(make_run("ga", 1, 0, 0.8), parameters=round(283_723 * 1.1))]
    got, found = flags(runs)
    assert got == {"seqpool": [], "ga": []}
    assert list(footnotes(found)) == []


def test_size_cost_and_training_are_flagged_above_the_tolerance(make_run):
    runs = [
        make_run("seqpool", 1, 0, 0.8),
        costing(make_run("ga", 1, 0, 0.8), parameters=round(283_723 * 1.73), flops=3_750_000),
        trained(make_run("gap", 1, 0, 0.8), epochs=20, steps=200),
        trained(make_run("se", 1, 0, 0.8), steps=150),
    ]
    got, found = flags(runs)
    assert got == {
        "seqpool": [],
        "ga": ["params +73 %", "FLOPs \N{MINUS SIGN}50 %"],
        "gap": ["epochs +100 %"],
        "se": ["steps +50 %"],
    }
    (note,) = footnotes(found)
    assert note.startswith(
        "MISMATCHED: 3 rows with a deviation of more than 10 % from the baseline (params: trained parameters;"
    )
    assert "tuning" not in note
    assert flags(runs, tolerance=0.8)[0] == {"seqpool": [], "ga": [], "gap": ["epochs +100 %"], "se": []}


def test_with_a_frozen_backbone_the_parameters_of_heads_are_compared(make_run):
    def make(head, parameters, **options):
        return costing(make_run(head, 1, 0, 0.8, **options), parameters=parameters, head_parameters=parameters - 10_000)

    got, found = flags([make("seqpool", 10_100, backbone="frozen"), make("ga", 10_150, backbone="frozen")])
    assert got == {"seqpool": [], "ga": ["head params +50 %"]}
    assert "(head params: parameters of the head, which alone are trained with" in next(footnotes(found))
    assert flags([make("seqpool", 10_100, backbone="train"), make("ga", 10_150, backbone="train")])[0]["ga"] == []


def test_a_head_with_more_tuning_is_flagged(make_run):
    """Other numbers of heads are the question, not tuning; another learning rate or gram_dim is."""
    runs = [make_run("seqpool", heads, 0, 0.8) for heads in (1, 2)]
    runs += [make_run("ga", 1, 0, 0.8, optimizer__lr=lr) for lr in (1e-3, 1e-2)]
    runs += [make_run("ga", 1, 0, 0.8, head__gram_dim=32), make_run("gap", 1, 0, 0.8), make_run("gap", 1, 1, 0.8)]
    got, _ = flags(runs)
    assert got == {"seqpool": [], "ga": ["tuning 3 to 1"], "gap": []}


@pytest.mark.parametrize("missing", ["parameters", "flops"])
def test_unknown_costs_are_not_flagged(make_run, missing):
    run = make_run("ga", 1, 0, None)
    path = run.path / "run.json"
    record = json.loads(path.read_text())
    del record["cost"][missing]
    path.write_text(json.dumps(record))
    assert flags([make_run("seqpool", 1, 0, 0.8), run])[0] == {"seqpool": [], "ga": []}
