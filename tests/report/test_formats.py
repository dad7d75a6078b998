"""Each format shows the same table and escapes all text."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from rendering import as_markdown, on_screen
from rich.console import Console

from headsweep.report.formats import csv as csv_format
from headsweep.report.formats import html, latex, markdown, terminal
from headsweep.report.formats import json as json_format
from headsweep.report.read.cells import MISSING
from headsweep.report.request import Request
from headsweep.report.table.build import build
from headsweep.report.table.columns import human, rounded
from headsweep.report.table.layout import flat

EVIL = '=cmd|"/c"!A\x1b[31mred\x1b]0;t\x07\n\\input{/etc}<b>bold</b>|**b** [x](y) `c` &lt; __d__ %'
GA = [0.925, 0.931, 0.921, 0.926, 0.928]
SEQPOOL = [0.90, 0.91, 0.89, 0.905, 0.90]


@pytest.fixture
def evil(make_run):
    """A table with a hostile text as a head and as a value of an axis."""
    runs = [make_run(head, 1, 0, 0.5, model__name=EVIL) for head in ("gap", EVIL)]
    return build([*runs, make_run("ga", 1, 0, 0.5)])


@pytest.fixture
def better(make_run):
    """Ga is better than seqpool; se has lost two of five seeds, and gap is worse."""
    runs = [make_run("seqpool", 1, seed, top1) for seed, top1 in enumerate(SEQPOOL)]
    runs += [make_run("ga", 1, seed, top1) for seed, top1 in enumerate(GA)]
    return runs + [make_run("gap", 1, seed, top1 - 0.1 - seed / 1000) for seed, top1 in enumerate(SEQPOOL)]


def test_a_terminal_gets_no_control_characters(evil):
    text = on_screen(evil)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert r"=cmd|\"/c\"!A\x1b[31mred\x1b]0;t\x07 \input{/etc}<b>bold</b>".replace(r"\"", '"') in text
    assert len([line for line in text.splitlines() if "gap" in line and "50.00" in line]) == 1


def test_markdown_gets_no_tags_rows_or_emphasis(evil):
    text = as_markdown(evil)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.split(r"(?<!\\)\|", row)) for row in rows}) == 1 and len(rows) == 2 + 3
    assert "<b>" not in text and "&amp;lt;" in text
    assert r"\*\*b\** \[x\](y) \`c\`" in text and r"\__d__" in text
    assert r"\\input{/etc}" in text


@pytest.mark.parametrize(
    "text", ["p McNemar*", "p < 0.05", "head.gram_dim", "cct_2_3x2", "Δ 1 ± 2 %", "a & b", "https://a.b/c_d?e=f&g=h"]
)
def test_markdown_keeps_what_is_not_special(text):
    assert markdown.escape(text) == text


def test_latex_gets_no_commands(evil):
    text = latex.write(flat(evil))
    assert "\\input{" not in text.replace("\\textbackslash{}input", "")
    assert text.count("=cmd\\textbar{}") == 3 and "\x1b" not in text
    request = Request("params.a = '1'\n\\input{/etc} --> <b>")
    marked = request.text(evil, "latex")
    assert marked.splitlines()[0].startswith("% headsweep table ") and "\n\\input{/etc}" not in marked
    assert "-->" not in request.text(evil, "html").splitlines()[0].removesuffix(" -->")


def test_a_row_of_latex_that_begins_with_a_bracket_is_no_option_of_the_line_above(make_run):
    runs = [make_run("ga", 1, 0, 0.9, augmentation__scale=scale) for scale in ([0.8, 1.0], [0.5, 1.0])]
    table = build([*runs, make_run("*a", 1, 0, 0.9)])
    pivot = Request("x", rows="augmentation.scale,head", cols="heads").sheet(table)
    rows = latex.write(pivot).splitlines()
    assert not any(row.startswith(("[", "*")) for row in rows)
    assert sum(row.startswith("{}[") for row in rows) == 2
    assert any(row.startswith("{}*a") for row in latex.write(flat(table)).splitlines())


def test_html_gets_no_tags(evil):
    text = html.write(flat(evil))
    assert "<b>" not in text and "\x1b" not in text and "&lt;b&gt;bold&lt;/b&gt;" in text


def test_csv_gets_no_formula_and_keeps_its_numbers(evil, make_run):
    rows = list(csv.DictReader(io.StringIO(csv_format.write(evil))))
    assert rows[1]["head"].startswith("'=cmd") and len(rows) == 3
    assert not any(value.startswith(("=", "+", "@")) for row in rows for value in row.values())
    for text in ("=1+1", "+a", "-a", "@a", "\t=a", " =a"):
        assert csv_format.escape(text).startswith("'")
    for value in ("-0.8", "+5", "-1e-3", -0.8, 3, None, "a=b", "ga"):
        assert csv_format.escape(value) == value


def test_json_has_the_original_text_and_no_control_characters(evil):
    text = json_format.write(evil, "made by\x9b")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert json.loads(text)["rows"][1]["head"] == EVIL


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [(-0.5, "+", "−0.50"), (0.5, "+", "+0.50"), (-0.001, "+", "0.00"), (-0.0, "", "0.00"), (-12.345, "", "−12.35")],  # noqa: RUF001
)
def test_a_computed_number_has_a_minus_and_zero_has_no_sign(value, sign, text):
    assert human(rounded(value, 2, sign)) == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.0496, "0.0496"), (0.04999, "0.04999"), (0.05, "0.050"), (0.0503, "0.050"), (0.049, "0.049")]
)
def test_a_p_below_the_level_is_not_rounded_up_to_it(better, p, text):
    table = build(better)
    rows = tuple(replace(row, p=p) if row.p is not None else row for row in table.rows)
    sheet = flat(replace(table, rows=rows), ["p"])
    assert {row[-1].text for row in sheet.rows} - {MISSING} == {text}
    assert f" {text} " in latex.write(sheet)


def test_a_small_half_width_is_not_rounded_to_none(make_run):
    table = build([make_run("ga", 1, seed, top1) for seed, top1 in enumerate([0.92502, 0.92502, 0.925])])
    assert "92.501 ± 0.003" in as_markdown(table) and "92.501 \\pm 0.003" in latex.write(flat(table))


def test_tables_to_read_have_a_minus_sign_and_others_a_hyphen(better):
    table = build(better)
    minus = "\N{MINUS SIGN}10.20"
    assert minus in as_markdown(table) and minus in on_screen(table) and minus in html.write(flat(table))
    assert "-10.20 \\pm" in latex.write(flat(table))
    assert ",-0.10" in csv_format.write(table)


def test_units_are_in_the_headings_and_counts_have_enough_digits_to_differ(make_run):
    runs = [make_run(head, 1, 0, 0.9) for head in ("gap", "ga", "se")]
    for run, count in zip(runs, (4_119_444, 4_119_431, 0), strict=True):
        run.write_cost(run.record().cost | {"parameters": count})
    sheet = flat(build(runs), ["parameters", "head_share", "peak_memory"])
    assert [heading.label for heading in sheet.headings[2:]] == ["params (M)", "head share %", "memory (GiB)"]
    assert [row[2].text for row in sheet.rows] == ["4.11944", "4.11943", "0.00000"]
    assert [row[3].text for row in sheet.rows] == ["10.0"] * 3
    assert "{params (M)}" in latex.write(sheet) and "| params (M) |" in markdown.write(sheet)
    runs[0].write_cost(runs[0].record().cost | {"parameters": 123_456_789_012})
    runs[1].write_cost(runs[1].record().cost | {"parameters": 123_456_789_013})
    assert flat(build(runs), ["parameters"]).rows[1][2].text == "123.456789013"


def test_a_pivot_of_counts_has_their_unit(make_run):
    runs = [make_run(head, heads, 0, 0.9) for head in ("gap", "ga") for heads in (1, 4)]
    sheet = Request("x", rows="head", cols="heads", columns="parameters").sheet(build(runs))
    console = Console(width=100, file=io.StringIO())
    terminal.show_sheet(sheet, console)
    assert console.file.getvalue().count("params (k)") == 2


def test_a_short_time_has_its_digits(make_run):
    runs = [make_run(head, 1, 0, 0.9) for head in ("gap", "ga")]
    for run, seconds in zip(runs, (600.0, 0.9), strict=True):
        run.finish(replace(run.result(), clock={"train_seconds": seconds, "images_per_second": 4 * seconds}))
    sheet = flat(build(runs), ["time", "images_per_second"])
    assert [[entry.text for entry in row[2:]] for row in sheet.rows] == [["10.000", "2400.0"], ["0.015", "3.6"]]


def test_n_is_the_runs_in_the_mean_and_those_that_diverged_are_named(better, diverge):
    for run in (better[6], better[8]):  # of ga
        diverge(run)
    table = build(better)
    entries = [row[2] for row in flat(table, ["n", "top1"]).rows]
    assert [entry.text for entry in entries] == ["5", "3/5", "5"]
    assert [row["n"] for row in csv.DictReader(io.StringIO(csv_format.write(table)))] == ["5", "3", "0", "5"]
    assert "DIVERGED, not in any mean: head=ga heads=1 (seeds 1, 3)." in as_markdown(table)
    pivot = Request("x", rows="head", cols="heads").sheet(table)
    assert "DIVERGED, not in any mean: head=ga heads=1 (seeds 1, 3)." in pivot.notes()


def test_without_colors_bold_is_an_asterisk_and_only_shown_marks_are_explained(better):
    table = build(better)
    plain, bold = on_screen(table), on_screen(table, force_terminal=True, color_system="standard")
    assert "*92.62 ± 0.46" in plain and "*: better than the baseline" in plain and "Bold" not in plain
    assert "\x1b[1m92.62 ± 0.46" in bold and "Bold: better than the baseline" in bold and "*" not in bold
    assert "Bold" in as_markdown(table) and "Bold" not in json_format.write(table, "")
    assert "better than" not in as_markdown(build(better[:5] + better[10:]))


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_screen_explains_only_its_columns_and_always_shows_mismatches(better, width):
    for run in better[5:10]:
        cost = run.record().cost
        run.write_cost(cost | {"parameters": 2 * cost["parameters"], "flops": 3 * cost["flops"]})
    text = on_screen(build(better), width)
    assert "Columns that do not fit: head share, top-5 %" in " ".join(text.split())
    assert "flags" in text.splitlines()[0] and "…" not in text
    assert "params +100 %" in text and "FLOPs +200 %" in text and "MISMATCHED: 1" in text
    assert ("Images/s is" in text) is ("images/s" in text.splitlines()[0])
    assert ("FLOPs are" in text) is ("FLOPs" in text.splitlines()[0])
    if width == 80:
        assert all(len(line) <= width for line in text.splitlines())


def test_only_a_terminal_has_a_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    assert terminal.screen().width == terminal.WIDEST
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert terminal.screen().width == 72


def test_the_table_at_the_end_of_a_sweep_has_all_columns_in_a_pipe(better, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "72")
    terminal.show(build(better))
    text = capsys.readouterr().out
    assert "do not fit" not in text and "head share" in text and "top-5 %" in text


def test_a_speed_that_is_not_finite_is_not_measured(make_run):
    table = build([make_run("ga", 1, 0, 0.9, speed=float("inf")), make_run("ga", 1, 1, 0.9, speed=5.0)])
    assert json.loads(json_format.write(table, ""))["rows"][0]["images_per_second"] == 5.0
