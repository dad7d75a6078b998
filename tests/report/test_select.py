"""Cells are selected and named in the words of a command line."""

from dataclasses import replace

import pytest

from headsweep.config.values import read_words
from headsweep.errors import UserError
from headsweep.report.read.axes import varying_axes
from headsweep.report.read.cells import Run, gather, read_cells
from headsweep.report.read.select import cell_name, select_cells
from headsweep.report.table.baseline import baselines
from headsweep.tracking.run_record import RunState


@pytest.fixture
def cells(make_run):
    """Seqpool and ga, one and four of each, at two learning rates; ga also with another gram_dim."""
    runs = [
        make_run(head, heads, 0, 0.9, optimizer__lr=lr)
        for head in ("seqpool", "ga")
        for heads in (1, 4)
        for lr in (1e-3, 1e-2)
    ]
    return read_cells([*runs, make_run("ga", 1, 0, 0.9, optimizer__lr=1e-3, head__gram_dim=64)])


def test_a_cell_is_selected_by_values_written_in_any_way(cells):
    found = select_cells(cells, read_words(["head=ga heads=1", "optimizer.lr=0.001"]))
    assert [(cell.head, cell.heads, cell.value("head.gram_dim")) for cell in found] == [
        ("ga", 1, 192),
        ("ga", 1, 64),
    ]
    assert select_cells(cells, {"optimizer.lr": "1e-2", "head": "ga", "heads": "4"}) == [cells[7]]
    assert select_cells(cells, {}) == cells


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seqattn"], r"'seqattn': expected KEY=VALUE, e\.g\. head=seqpool or head=seqattn,heads=4"),
        (["head="], r"'head=': expected KEY=VALUE"),
        (["haed=ga"], "haed: unknown key; did you mean head or heads"),
        (["hedas=4"], "hedas: unknown key; did you mean heads"),
        (["head=gap", "heads=4"], "head=gap heads=4: no such cell among 9; head is seqpool, ga; heads is 1, 4"),
    ],
)
def test_a_mistake_is_answered_with_the_known_values(cells, words, message):
    with pytest.raises(UserError, match=message):
        select_cells(cells, read_words(words))


def test_a_cell_is_named_by_the_axes_that_it_has(cells):
    assert cell_name(cells[8], ["optimizer.lr", "head.gram_dim"]) == (
        "head=ga heads=1 optimizer.lr=0.001 head.gram_dim=64"
    )
    assert cell_name(cells[0], ["head.gram_dim"]) == "head=seqpool heads=1"


def test_a_baseline_is_found_by_a_value_written_in_any_way_as_a_cell_is(cells):
    axes = ["optimizer.lr"]
    (expected,) = select_cells(cells, {"head": "seqpool", "heads": "1", "optimizer.lr": "1e-3"})
    for words in ("head=seqpool,heads=1,optimizer.lr=1e-3", "head.name='seqpool' heads=1.0 optimizer.lr=0.0010"):
        assert baselines(cells, axes, read_words([words])) == [expected] * 9
    assert baselines(cells, axes, {"optimizer.lr": "1e-2"})[:2] == [cells[1], cells[1]]


def test_the_cells_of_mlflow_whose_values_are_text_have_the_same_baseline(cells):
    as_text = [
        replace(run.record, parameters={key: str(value) for key, value in run.record.parameters.items()})
        for cell in cells
        for run in cell.runs
    ]
    stored = gather([Run(record, RunState.new, None) for record in as_text])
    assert baselines(stored, ["optimizer.lr"], {"optimizer.lr": "1e-2"})[0] == stored[1]
    assert varying_axes(stored) == varying_axes(cells)


def test_a_null_is_a_value_and_a_baseline_in_a_group_needs_no_agreement_in_it(make_run):
    runs = [make_run("ga", 1, 0, 0.9, model__name=name, clip_norm=None) for name in ("small", "large")]
    small, large = read_cells(runs)
    assert select_cells([small, large], {"clip_norm": "null"}) == [small, large]
    assert baselines([small, large], ["model.name"], {"model": "small"}) == [small, small]
    assert varying_axes([small, large], ["model"]) == ["model"]
