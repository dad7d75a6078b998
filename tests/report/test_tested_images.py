"""The number of test images is in a footnote, with the standard error of one run."""

from __future__ import annotations

import numpy as np
import pytest
from made_cells import made_cell
from rendering import as_markdown

from headsweep.report.read.cells import read_cells
from headsweep.report.table.build import build, compare
from headsweep.report.table.model import Question


@pytest.fixture
def run_tested_on(make_run):
    """A run on so many test images, of which the share `top1` is classified correctly."""

    def make(head, seed, top1, images, **options):
        folder = make_run(head, 1, seed, top1, **options)
        folder.write_test_correct(np.arange(images) < top1 * images)
        return folder

    return make


def test_it_is_that_of_the_baseline(run_tested_on):
    runs = [run_tested_on(head, seed, top1, 360) for head, top1 in (("seqpool", 0.85), ("ga", 0.5)) for seed in (0, 1)]
    note = "360 test images of digits: the standard error of one run at 85.00 % top-1 is 1.88 points (binomial)."
    assert note in as_markdown(build(runs))
    other = as_markdown(compare(read_cells(runs), Question(baseline={"head": "ga"})))
    assert "360 test images of digits: the standard error of one run at 50.00 % top-1 is 2.64 points" in other


def test_each_data_set_has_its_own(run_tested_on):
    runs = [run_tested_on("seqpool", 0, 0.8, 360), run_tested_on("seqpool", 0, 0.9, 10_000, dataset__name="cifar10")]
    text = as_markdown(build(runs))
    assert "360 test images of digits: " in text
    assert "10,000 test images of cifar10: the standard error of one run at 90.00 % top-1 is 0.30 points" in text


def test_no_error_at_100_percent_and_no_footnote_without_predictions(run_tested_on, make_run):
    assert "- 360 test images of digits.\n" in as_markdown(build([run_tested_on("seqpool", 0, 1.0, 360)]))
    assert "test images of" not in as_markdown(build([make_run("ga", 1, 0, 0.9)]))
    assert "test images of" not in as_markdown(compare([made_cell("ga", [0.9])], Question()))
    runs = [run_tested_on("seqpool", 0, 0.9, 360)]
    assert "test images of" not in as_markdown(compare(read_cells(runs), Question(metric="val_top1")))


def test_damaged_predictions_leave_the_run_in_the_table(run_tested_on):
    runs = [run_tested_on("seqpool", seed, 0.9, 360) for seed in (0, 1)]
    runs[0].correct.write_bytes(b"no array")
    table = build(runs)
    assert table.rows[0].seeds == (0, 1) and "360 test images of digits" in as_markdown(table)
