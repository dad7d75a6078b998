"""A page has every planned run, claims no more than the table, and is the same for the same runs."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from made import EPOCHS, run, table_of

from headsweep.report.html import curves, document, selection, styles
from headsweep.report.html.origin import Origin, origin_of
from headsweep.text import plural
from headsweep.tracking import atomic_files
from headsweep.tracking.inspection import Inspection, Question, checkpoint_digest, write_inspection
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from undrawn import draw as draw_nothing


def section(page: str, name: str) -> str:
    """A section of the page; "" if there is none."""
    found = re.search(rf'<section id="{name}">.*?</section>', page, flags=re.DOTALL)
    return found[0] if found else ""


def alts(page: str) -> dict[str, str]:
    """Name of a figure -> its text alternative."""
    return dict(re.findall(r'<desc id="([\w-]+)-alt">(.*?)</desc>', page))


@pytest.mark.usefixtures("undrawn")
def test_every_cell_and_every_run_without_a_result_is_there(study, write_page):
    lost = run("se", 2, 0, None)
    broken = run("se", 2, 1, 0.5, state="diverged", note="loss is NaN at step 7")
    page = write_page([*study, lost, broken])
    table = section(page, "table")
    assert table.count("<tr>") == 1 + 9 + 1
    assert "29 in 10 cells, 27 finished" in section(page, "study")
    failures = section(page, "failures")
    assert "se2-seed0" in failures and "unfinished" in failures
    assert "se2-seed1" in failures and "loss is NaN at step 7" in failures
    assert "PARTIAL" in section(page, "warnings")
    assert page.index('id="warnings"') < page.index('id="table"')


@pytest.mark.slow
def test_a_complete_sweep_has_no_warnings_and_no_failures(study_page):
    assert not section(study_page, "warnings") and not section(study_page, "failures")


@pytest.mark.slow
def test_the_table_begins_with_what_is_compared_and_names_its_longest_head(study_page):
    table = section(study_page, "table")
    titles = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)
    assert titles[:6] == ["head", "heads", "top-1 %", "Δ top-1", "p", "n"] and titles[-1].startswith("images/s")
    assert 'style="--first: 7"' in table


@pytest.mark.usefixtures("undrawn")
def test_a_row_of_two_seeds_of_which_one_has_no_number_is_one_of_one_seed(write_page):
    bad = run("ga", 1, 1, 0.9, metrics={"test/top1": math.nan})
    page = write_page([run("ga", 1, 0, 0.9), bad])
    assert "ONE SEED in 1 of 1 finished row" in section(page, "warnings")


@pytest.mark.slow
def test_text_alternatives_have_the_numbers_of_the_table(study, study_page):
    text, table = alts(study_page), table_of(study)
    for row in table.rows:
        top1 = f"{100 * row.top1.mean:.2f} ± {100 * row.top1.half_width:.2f} %"
        assert f"{row.head}, {plural(row.heads, 'head')}: {top1}" in text["accuracy-against-heads"]
    assert "together 90.5" not in text["each-head-alone"]  # of one head
    assert "ga, 4 heads: together 95.20 %, alone 91.20 to 94.20 %" in text["each-head-alone"]
    assert f"at epoch {EPOCHS}" in text["learning-curves-8"]
    assert text["time-against-heads"].startswith("seqpool, 1 head: 1.0 minutes; seqpool, 4 heads: 4.0 minutes")


class Cells(HTMLParser):
    """The texts of a table, by row, and the numbers of marks."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.marks: list[str] = []
        self.into: list[str] | None = None

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.into = self.rows[-1]
            self.into.append("")
        if tag == "circle":
            self.into = self.marks
            self.into.append("")

    def handle_endtag(self, tag):
        if tag in ("th", "td", "circle"):
            self.into = None

    def handle_data(self, data):
        if self.into is not None:
            self.into[-1] += data


def cells(page: str, name: str) -> Cells:
    parsed = Cells()
    parsed.feed(section(page, name))
    return parsed


@pytest.mark.slow
def test_figures_and_table_show_the_same_numbers(study_page):
    titles, *rows = cells(study_page, "table").rows
    at = {title: titles.index(title) for title in ("head", "heads", "top-1 %", "Δ top-1", "p", "n")}
    shown = [{title: row[place] for title, place in at.items()} for row in rows]
    named = {f"{row['head']}, {plural(int(row['heads']), 'head')}": row for row in shown}
    assert len(named) == 9
    accuracy = [f"{name}: {row['top-1 %']} %" for name, row in named.items()]
    assert sorted(cells(study_page, "accuracy").marks) == sorted(accuracy)
    differences = [
        f"{name}: {row['Δ top-1']} points" + (f", p {row['p']}" if row["p"] != "—" else "") + f", n = {row['n']}"
        for name, row in named.items()
        if row["Δ top-1"] != "baseline"
    ]
    assert [mark for mark in cells(study_page, "differences").marks if "seed" not in mark] == differences
    verdict = section(study_page, "verdict")
    assert all(f"<li>{text}" in verdict for text in differences)


@pytest.mark.slow
def test_marks_are_where_the_figure_has_its_markers(study_page):
    for name in ("accuracy", "differences", "tradeoffs", "ensembles", "costs"):
        for svg in re.findall(r"<svg.*?</svg>", section(study_page, name), flags=re.DOTALL):
            drawn = {(float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg)}
            marks = [
                (float(x), float(y)) for x, y in re.findall(r'<circle class="mark" cx="([\d.]+)" cy="([\d.]+)"', svg)
            ]
            assert marks
            for x, y in marks:
                assert min(math.dist((x, y), place) for place in drawn) < 0.1, (name, x, y)


@pytest.mark.usefixtures("undrawn")
def test_the_front_on_the_page_is_that_of_the_means(write_page):
    tops = {("seqpool", 1): 0.90, ("seqpool", 2): 0.89, ("ga", 4): 0.95, ("seqattn", 4): 0.93}
    page = write_page([run(head, heads, 0, top1) for (head, heads), top1 in tops.items()])
    front = alts(page)["accuracy-against-parameters"]
    assert front.endswith("seqpool, 1 head, 281 k, 90.00 %; ga, 4 heads, 281 k, 95.00 %.")


@pytest.mark.slow
def test_the_same_runs_make_the_same_bytes_and_old_figures_go(write_page, tmp_path, monkeypatch):
    runs = [run("ga", 1, seed, 0.9 + seed / 100, history={}) for seed in (0, 1)]
    first = write_page(runs)
    files = {path: path.read_bytes() for path in (tmp_path / document.FIGURES).iterdir()}
    assert {path.suffix for path in files} == {".svg", ".pdf"}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # another date
    assert write_page(runs) == first
    assert {path: path.read_bytes() for path in (tmp_path / document.FIGURES).iterdir()} == files
    monkeypatch.setattr(document, "draw", draw_nothing)
    assert (tmp_path / document.FIGURES / "accuracy.svg") in files
    write_page([run("ga", heads, 0, 0.9) for heads in (1, 2)])
    assert not (tmp_path / document.FIGURES / "accuracy.svg").exists()


class Parts(HTMLParser):
    """Ids, references to them, and files that would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href") and value.startswith("#"):
                self.references.add(value[1:])
            elif name in ("src", "href", "xlink:href", "srcset", "action"):
                self.loads.append(value)
            self.references |= set(re.findall(r"url\(#([^)]*)\)", value or ""))
            if name == "aria-labelledby":
                self.references |= set(value.split())


@pytest.mark.slow
def test_the_page_loads_nothing_and_its_ids_are_unique_and_known(study_page):
    page, parts = study_page, Parts()
    parts.feed(page)
    assert len(parts.ids) == len(set(parts.ids)) > 100
    assert parts.references <= set(parts.ids)
    assert parts.loads == []
    assert "@import" not in page
    (script,) = re.findall("<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}';" in page and page.count("<script") == 1
    for color in ("#0072b2", "#1c2024", "#fefefe"):  # replaced by variables, which differ in dark mode
        assert color not in page[page.index("</style>") :]


@pytest.mark.slow
@pytest.mark.usefixtures("as_svg")
def test_text_is_escaped(write_page):
    page = write_page(
        [run("<b>", 1, 0, 0.9), run("x$y$", 2, 0, 0.9), run("<b>", 2, 0, None)],
        Origin("<i>", ("a < b",), "<u>"),
    )
    assert not re.search("<b>|<i>|<u>", page)
    assert "x$y$" in page


@pytest.mark.usefixtures("undrawn")
def test_one_seed_has_no_intervals_and_a_warning(write_page):
    page = write_page([run(head, heads, 0, 0.9) for head in ("seqpool", "ga") for heads in (1, 2)])
    assert "ONE SEED in 4 of 4 finished rows" in section(page, "warnings")
    assert "No confidence intervals: one seed each." in section(page, "accuracy")
    assert "±" not in section(page, "accuracy") + section(page, "table")


@pytest.mark.slow
@pytest.mark.usefixtures("as_svg")
def test_one_run_is_a_page(write_page):
    page = write_page([run("ga", 1, 0, 0.9)])
    assert alts(page)["accuracy"] == "ga, 1 head: 90.00 %."
    assert "none: no two cells can be compared" in section(page, "study")
    assert "No cell has several heads." in section(page, "ensembles")


def test_a_sweep_without_finished_runs_is_a_page_with_a_warning(write_page):
    page = write_page([run("ga", 1, 0, None), run("seqpool", 1, 0, None)])
    assert "NO FINISHED RUN" in section(page, "warnings")
    assert alts(page) == {}
    assert "None: no two cells can be compared." in section(page, "verdict")
    for name in ("accuracy", "tradeoffs"):
        assert "No finished run has a value to draw." in section(page, name)


def test_a_metric_that_no_run_has_is_a_warning(write_page):
    page = write_page([run("ga", heads, 0, 0.9) for heads in (1, 2)], metric="top1_selected")
    assert "NO TOP-1 SELECTED in 2 of 2 finished rows" in section(page, "warnings")
    assert "No finished run has a value to draw." in section(page, "accuracy")


@pytest.mark.slow
@pytest.mark.usefixtures("as_svg")
def test_not_a_number_is_not_drawn_and_does_not_hide_the_others(write_page):
    bad = run("ga", 2, 0, 0.9, metrics={"test/top1": math.nan}, history={"val/top1": {1: math.nan, 2: 0.5}})
    page = write_page([run("ga", 1, 0, 0.9), bad, run("ga", 4, 0, 0.8)])
    assert alts(page)["accuracy-against-heads"] == "ga, 1 head: 90.00 %; ga, 4 heads: 80.00 %."
    assert "nan" not in "".join(alts(page).values()).lower()
    assert "NO TOP-1 in 1 of 3 finished rows" in section(page, "warnings")


@pytest.mark.slow
@pytest.mark.usefixtures("as_svg")
def test_without_validation_the_curves_are_of_the_test_images(write_page):
    history = {"test/top1": {1: 0.5, 2: 0.6}}
    found = run("ga", 1, 0, 0.6, history=history)
    bare = run("se", 1, 0, 0.6, history={})
    for one in (found, bare):
        del one.result.metrics["val/top1"]
    page = write_page([found, bare])
    assert "test top-1 (%)" in section(page, "learning")
    assert "No values at these epochs: se." in section(page, "learning")


def test_a_curve_is_the_mean_and_the_range_of_the_seeds_at_the_epochs_that_all_have():
    histories = [{1: 0.2, 2: 0.4, 3: 0.9}, {1: 0.4, 2: 0.8}]
    curve = curves.curve("ga", styles.STYLES[0], histories, lambda seeds: (min(seeds), max(seeds)))
    assert curve.epochs == (1, 2)
    assert curve.mean == pytest.approx((30, 60))
    assert (curve.low, curve.high) == (pytest.approx((20, 40)), pytest.approx((40, 80)))
    long = curves.sampled(range(1, 301), 60)
    assert (len(long), long[0], long[-1]) == (60, 1, 300)
    assert long == sorted(set(long))


@pytest.mark.usefixtures("undrawn")
def test_of_many_cells_the_best_are_drawn_and_all_are_in_the_table(write_page):
    runs = [run("ga", heads, 0, 0.5 + lr / 1000, lr=lr) for lr in range(1, 41) for heads in (1, 2)]
    page = write_page(runs)
    assert section(page, "table").count("<tr>") == 81
    drawn = alts(page)["accuracy-against-heads"]
    assert drawn.count(";") == 2 * selection.MOST - 1
    assert "lr 40" in drawn and "lr 33," in drawn and "lr 32" not in drawn
    assert f"Shown are the {selection.MOST} of 40 lines with the best cells by validation top-1" in section(
        page, "accuracy"
    )


@pytest.mark.usefixtures("undrawn")
def test_the_commands_and_the_header_of_the_study_are_quoted(tmp_path, write_page):
    studies, sweep = tmp_path / "studies", SweepFolder(tmp_path / "sweeps" / "pilot")
    atomic_files.write_text(
        studies / "deep.yaml", "# @package _global_\n#\n# Question   Why?\n# Cost  1\ndefaults: []\n# no\n"
    )
    atomic_files.write_json(
        sweep.path / "plan.json", {"commands": ["python src/train.py -m +sweeps=deep", "x +sweeps=gone"], "runs": []}
    )
    origin = origin_of(sweep, studies)
    assert origin.study == "Question   Why?\nCost  1"
    question = section(write_page([run("ga", 1, 0, 0.9)], origin), "study")
    assert "<pre>Question   Why?" in question and "<code>x +sweeps=gone</code>" in question


@pytest.mark.usefixtures("undrawn")
def test_an_inspection_is_shown_until_the_run_is_trained_further(write_page, tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.path.mkdir(parents=True)
    folder.checkpoint.write_bytes(b"weights")
    metrics = {"top1": 0.5, "ensemble_gain": 0.025, "disagreement": 0.125}
    seen = Inspection(checkpoint_digest(folder), Question("test", None, 8), 256, [0.45, 0.5], metrics, {}, {})
    write_inspection(folder.path, seen, {"attention.png": lambda file: file.write(b"PNG")})
    runs = [replace(run("ga", 2, 0, 0.9), folder=folder), run("ga", 4, 0, 0.9)]
    page = write_page(runs)
    assert "top-1 of each head alone: 45.00, 50.00 %; together 50.00 %, on 256 images" in page
    assert "<dt>gain over the mean of the heads</dt><dd>2.5 points</dd>" in page
    assert 'src="data:image/png;base64,UE5H" alt="ga2-seed0: attention maps"' in page
    folder.checkpoint.write_bytes(b"others")
    assert "Inspection of the heads" not in write_page(runs)
