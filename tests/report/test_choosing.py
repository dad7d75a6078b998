"""Cells chosen and named in the words of a command line."""

import pytest

from headsweep.errors import UserError
from headsweep.report.choosing import choose, named, read_words
from headsweep.report.results import read_cells


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


def test_a_cell_is_chosen_by_values_written_in_any_way(cells):
    chosen = choose(cells, read_words(["head=ga heads=1", "optimizer.lr=0.001"]))
    assert [(cell.head, cell.heads, cell.value("head.gram_dim")) for cell in chosen] == [("ga", 1, 192), ("ga", 1, 64)]
    assert choose(cells, {"optimizer.lr": "1e-2", "head": "ga", "heads": "4"}) == [cells[7]]
    assert choose(cells, {}) == cells


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seqattn"], r"'seqattn': want KEY=VALUE, e\.g\. head=seqattn heads=4"),
        (["head="], r"'head=': want KEY=VALUE"),
        (["hedas=4"], "hedas: unknown key; did you mean heads"),
        (["head=gap", "heads=4"], "head=gap heads=4: no such cell among 9; head is seqpool, ga; heads is 1, 4"),
    ],
)
def test_a_mistake_says_what_there_is(cells, words, message):
    with pytest.raises(UserError, match=message):
        choose(cells, read_words(words))


def test_a_cell_is_named_by_the_axes_that_it_has(cells):
    assert named(cells[8], ["optimizer.lr", "head.gram_dim"]) == "head=ga heads=1 optimizer.lr=0.001 head.gram_dim=64"
    assert named(cells[0], ["head.gram_dim"]) == "head=seqpool heads=1"
