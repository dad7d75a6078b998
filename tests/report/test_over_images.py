"""A table with intervals over images reads the predictions of its runs, and only then."""

from __future__ import annotations

import numpy as np
import pytest
from rendering import as_csv

from headsweep.report.read.cells import read_cells
from headsweep.report.stats.crossed import difference_over_images, estimate_over_images
from headsweep.report.table.build import build, compare
from headsweep.report.table.layout import flat
from headsweep.report.table.model import Question
from headsweep.tracking.run_folder import RunFolder

IMAGES = 50
ASKED = Question(columns=("top1", "top1_images", "difference_images"))


@pytest.fixture
def study(make_run):
    """Two heads, three seeds, with predictions."""
    draw, folders = np.random.default_rng(0), []
    for head, right in (("seqpool", 0.8), ("ga", 0.9)):
        for seed in range(3):
            correct = draw.random(IMAGES) < right
            folders.append(make_run(head, 1, seed, float(correct.mean())))
            folders[-1].write_test_correct(correct)
    return folders


def rows(folders, question=ASKED):
    return compare(read_cells(folders), question).rows


def test_the_rows_have_the_intervals_of_their_predictions(study):
    first, second = rows(study)
    of = {seed: folder.test_correct() for seed, folder in enumerate(study[:3])}
    others = {seed: folder.test_correct() for seed, folder in enumerate(study[3:])}
    assert first.estimate_over_images == estimate_over_images(list(of.values()))
    assert first.estimate_over_images.mean == pytest.approx(first.top1.mean)
    assert first.difference_over_images is None and first.no_images == ""
    assert second.difference_over_images == difference_over_images(others, of)
    assert second.difference_over_images.images == IMAGES


def test_the_columns_are_shown_on_request_and_wherever_they_were_read(study):
    table = compare(read_cells(study), ASKED)
    sheet = flat(table, ASKED.columns)
    assert any("over images are not corrected for multiple" in note.text for note in table.footnotes)
    half = 100 * table.rows[1].difference_over_images.half_width
    assert sheet.rows[1][-1].text.endswith(f"± {half:.2f}") and sheet.rows[1][-1].text.startswith("+")
    assert any("Satterthwaite" in note for note in sheet.notes())
    shown = [heading.name for heading in flat(compare(read_cells(study), Question(over_images=True))).headings]
    assert {"top1_images", "difference_images"} < set(shown)
    assert "top1_images" not in [heading.name for heading in flat(build(study)).headings]
    assert not any("Satterthwaite" in note for note in flat(build(study)).notes())


def test_programs_read_them_where_the_table_has_them(study):
    found = as_csv(compare(read_cells(study), ASKED))[1]
    assert (found["images"], found["difference_over_images_n"]) == (str(IMAGES), "3")
    assert "images" not in as_csv(build(study))[0]


def test_predictions_of_all_runs_are_read_only_for_these_columns(study, monkeypatch):
    read = []
    original = RunFolder.test_correct
    monkeypatch.setattr(RunFolder, "test_correct", lambda folder: (read.append(folder), original(folder))[1])
    assert [row.estimate_over_images for row in build(study).rows] == [None, None]
    assert len(read) == 1  # for the number of test images
    rows(study)
    assert len(read) > len(study)


def test_a_row_without_comparable_predictions_says_why(study):
    study[0].write_test_correct(np.ones(IMAGES - 1, dtype=bool))
    first, second = rows(study)
    assert first.estimate_over_images is None
    assert second.estimate_over_images is not None and second.difference_over_images is None
    assert first.no_images == second.no_images == "the runs were tested on different images"
    study[0].correct.unlink()
    notes = [note.text for note in compare(read_cells(study), ASKED).footnotes]
    assert "No interval over images in 2 of 2 rows: a run has no predictions by image." in notes


def test_another_metric_has_no_difference_over_images(study):
    asked = Question(metric="top5", columns=("top1_images", "difference_images"))
    assert [row.difference_over_images for row in rows(study, asked)] == [None, None]
