"""Published results are shown for their own configuration only, and compared within their tolerances."""

import pytest
from rendering import as_csv, as_markdown, on_screen

from headsweep.errors import UserError
from headsweep.report.table.build import build
from headsweep.report.table.published import load
from headsweep.report.table.published_check import within_tolerance

PAPER = """
source: Paper, Table 1
link: https://paper
evaluation: single runs
cell:
  dataset.name: cifar100
  duration: 300 epochs
  augmentation.crop_scale: [0.8, 1.0]
  debug.train_images: null
rows:
  - printed_as: CCT
    cell: {head.name: seqpool, heads: 1}
    top1: {value: 76.93, tolerance: 1.0, reason: binomial}
  - printed_as: Seq1
    note: the code builds eight heads
    cell: {head.name: seqattn, heads: 8}
    top1: {value: 78.47, tolerance: 1.0, reason: binomial}
    top5: {value: 94.48, tolerance: 0.5, reason: binomial}
    parameters: {value: 283750, tolerance: 27, reason: a dead layer}
"""
STATED = {"dataset__name": "cifar100", "duration": "300 epochs", "augmentation__crop_scale": [0.8, 1.0]}


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "paper.yaml").write_text(PAPER)
    return load(tmp_path / "published")


@pytest.fixture
def make_cell(make_run):
    """A run of the paper's recipe; top-5 is that of the fixture, (1 + top1) / 2, unless given."""

    def make(head, heads, top1, top5=0.9448, seed=0, **options):
        folder = make_run(head, heads, seed, top1, **{**STATED, **options})
        if (result := folder.result()) is not None:
            result.metrics["test/top5"] = top5
            folder.finish(result)
        return folder

    return make


def test_the_published_value_is_shown_beside_the_result(make_cell, sources):
    folders = [make_cell("seqpool", 1, 0.77), make_cell("ga", 1, 0.76), make_cell("seqattn", 8, 0.78)]
    table = build(folders, sources=sources)
    header, _, *rows = as_markdown(table).splitlines()[:5]
    assert "| top-1 % | published | top-5 % |" in header
    assert ["| 76.93 |" in row for row in rows] == [True, False, False]
    assert ["| 78.47 |" in row for row in rows] == [False, False, True]
    first, second, third = as_csv(table)
    assert (third["published_top1"], third["published_top5"]) == ("0.7847", "0.9448")
    assert (first["published_source"], third["published_source"]) == ("Paper, Table 1, CCT", "Paper, Table 1, Seq1")
    assert [row["within_tolerance"] for row in (first, second, third)] == ["True", "", "True"]
    text = on_screen(table)
    assert "published" in text.splitlines()[0] and "78.47" in text
    assert "Published: Paper, Table 1, single runs." in text
    assert "Seq1: the code builds eight heads." in text and "https://paper" in text
    assert "Reproduced: top-1 of 2 rows, top-5 of 1 row, parameters of 1 row within the tolerances" in text
    assert "NOT REPRODUCED" not in text


OTHERWISE = [
    {"dataset__name": "cifar10"},
    {"duration": "30 epochs"},
    {"augmentation__crop_scale": [0.5, 1.0]},
    {"debug__train_images": 256},
]


@pytest.mark.parametrize("difference", OTHERWISE, ids=str)
def test_a_cell_that_differs_in_a_stated_value_has_no_published_value(make_cell, sources, difference):
    folder = make_cell("seqattn", 8, 0.5, **difference)
    for given in (sources, []):
        table = build([folder], sources=given)
        assert "ublished" not in as_markdown(table) and "REPRODUCED" not in as_markdown(table)
        assert as_csv(table)[0]["published_top1"] == as_csv(table)[0]["within_tolerance"] == ""


@pytest.mark.parametrize(("head", "heads"), [("ga", 8), ("seqattn", 1)])
def test_another_head_or_number_of_heads_has_no_published_value(make_cell, sources, head, heads):
    assert "ublished" not in as_markdown(build([make_cell(head, heads, 0.5)], sources=sources))


def test_a_result_outside_its_tolerance_is_named_with_both_values(make_cell, sources):
    folders = [make_cell("seqpool", 1, 0.77), make_cell("seqattn", 8, 0.761)]
    table = build(folders, sources=sources)
    assert (
        "NOT REPRODUCED: head=seqattn heads=8: top-1 76.10, published 78.47 ± 1.00 (Paper, Table 1, Seq1)."
        in as_markdown(table)
    )
    assert "Reproduced: " not in as_markdown(table)
    assert [row["within_tolerance"] for row in as_csv(table)] == ["True", "False"]


@pytest.mark.parametrize(("top1", "agrees"), [(0.7793, True), (0.7593, True), (0.7794, False), (0.7592, False)])
def test_the_tolerance_itself_still_agrees_on_both_sides(make_cell, sources, top1, agrees):
    assert within_tolerance(build([make_cell("seqpool", 1, top1)], sources=sources).rows[0]) is agrees


def test_top5_and_parameters_can_miss_alone(make_cell, sources):
    table = build([make_cell("seqattn", 8, 0.78, top5=0.93)], sources=sources)
    assert "NOT REPRODUCED: head=seqattn heads=8: top-5 93.00, published 94.48 ± 0.50" in as_markdown(table)
    sources[0].rows[1].parameters.tolerance = 26
    table = build([make_cell("seqattn", 8, 0.78)], sources=sources)
    assert "NOT REPRODUCED: head=seqattn heads=8: parameters 283,723, published 283,750 ± 26" in as_markdown(table)


def test_what_was_not_published_is_not_reproduced(make_cell, sources):
    """Table 2 of Gramian attention is published here without accuracies, which depend on the epochs."""
    sources[0].rows[1].top1 = sources[0].rows[1].top5 = None
    text = as_markdown(build([make_cell("seqattn", 8, 0.1)], sources=sources))
    assert "Reproduced: parameters of 1 row within the tolerances of the published values." in text


def test_what_is_compared_is_the_mean_over_seeds(make_cell, sources):
    folders = [make_cell("seqattn", 8, top1, seed=seed) for seed, top1 in enumerate((0.76, 0.80))]
    assert within_tolerance(build(folders, sources=sources).rows[0]) is True


def test_rows_without_a_result_have_no_published_value(make_cell, sources):
    assert "ublished" not in as_markdown(build([make_cell("seqattn", 8, None)], sources=sources))


def test_two_published_numbers_for_one_cell_are_both_on_screen(make_cell, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    for name, value in (("a", "77.00"), ("b", "80.50")):
        text = PAPER.replace("Paper, Table 1", f"Paper {name}").replace("78.47", value)
        (folder / f"{name}.yaml").write_text(text)
    table = build([make_cell("seqattn", 8, 0.78)], sources=load(folder))
    assert "| 77.00 / 80.50 |" in as_markdown(table)
    assert as_csv(table)[0]["published_top1"] == "0.77 0.805"
    assert "REPRODUCED: head=seqattn heads=8: top-1 78.00, published 80.50 ± 1.00 (Paper b, Seq1)." in as_markdown(
        table
    )


def test_a_row_that_is_not_reproduced_is_named_by_its_axes(make_cell, sources):
    folders = [make_cell("seqattn", 8, 0.5, optimizer__lr=lr) for lr in (0.1, 0.2)]
    assert "head=seqattn heads=8 optimizer.lr=0.2: top-1 50.00, published" in as_markdown(
        build(folders, sources=sources)
    )


@pytest.mark.parametrize("width", [80, 120])
def test_a_screen_shows_the_published_column_whole(make_cell, sources, width):
    folders = [
        make_cell(head, k, 0.765 + seed / 100, seed=seed)
        for head, k in (("seqpool", 1), ("seqattn", 8))
        for seed in range(3)
    ]
    header, *rows = on_screen(build(folders, sources=sources), width).splitlines()[:3]
    assert "published" in header and len(header) <= width
    assert "76.93" in rows[0] and "78.47" in rows[1] and all("77.50 ± 2.48" in row for row in rows)


BAD = [
    ("a: [", "paper.yaml: while parsing"),
    ("- a", "paper.yaml: Cannot merge DictConfig with ListConfig"),
    (PAPER.replace("link:", "links:"), "paper.yaml: links: Key 'links' not in 'Source'"),
    (PAPER.replace("link: https://paper", ""), "paper.yaml: link: Structured config of type `Source` has missing"),
    (PAPER.replace("76.93", "many"), "paper.yaml: top1.value: Value 'many' of type 'str' could not be converted"),
    (PAPER.replace(", reason: a dead layer", ""), "paper.yaml: rows[1].parameters.reason: Structured config"),
    (PAPER.replace("76.93", "-1"), "paper.yaml: value=-1.0 tolerance=1.0: expected a value > 0"),
    (
        PAPER.replace("    top1: {value: 76.93, tolerance: 1.0, reason: binomial}\n", ""),
        "paper.yaml: CCT: expected at least one of top1, top5, parameters, found none",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[row[1] for row in BAD])
def test_a_bad_file_is_one_line_that_names_it(tmp_path, text, message):
    (tmp_path / "paper.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(caught.value)


def test_no_folder_is_no_published_number(tmp_path):
    assert load(tmp_path / "nothing") == []
