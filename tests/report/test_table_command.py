"""`headsweep table`: every layout has the same numbers, inconsistent runs are refused, written tables are verified."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from headsweep.report.read.cells import read_cells
from headsweep.tracking import atomic_files

SEQPOOL = [0.90, 0.91, 0.89, 0.905, 0.90]
GA = [0.925, 0.931, 0.921, 0.926, 0.928]


@pytest.fixture
def sweep(make_run, tmp_path):
    """Put runs into the sweep `pilot`; without any, two heads at two counts with five seeds."""

    def make(folders=None, axes=("head.name", "heads", "seed")):
        folders = folders or [
            make_run(head, heads, seed, top1 + heads / 1000)
            for head, tops in (("seqpool", SEQPOOL), ("ga", GA))
            for heads in (1, 4)
            for seed, top1 in enumerate(tops)
        ]
        runs = [folder.path.name for folder in folders]
        atomic_files.write_json(tmp_path / "sweeps" / "pilot" / "plan.json", {"axes": list(axes), "runs": runs})
        return folders

    return make


def lines(text):
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line]


@pytest.mark.slow
def test_the_columns_are_the_requested_ones(sweep, give):
    sweep()
    code, text = give("pilot", "--columns", "n,head_parameters,top5,difference,p_sign_flip")
    assert code == 0
    assert lines(text)[0] == ["head", "heads", "n", "head params (k)", "top-5 %", "Δ top-1", "p sign-flip"]
    assert lines(text)[3] == ["ga", "1", "5", "1.0", "96.36 ± 0.23", "*+2.52 ± 0.54", "0.125"]  # 2 of 32, twice


@pytest.mark.slow
def test_only_what_is_shown_is_explained(sweep, give):
    sweep()
    _, text = give("pilot", "--columns", "parameters,n")
    assert "images/s" not in text and "FLOPs" not in text and "McNemar" not in text and "Δ" not in text
    assert "Top-1 is accuracy" in text and "Top-1 and top-5" in give("pilot", "--columns", "top5")[1]
    assert "*: better than the baseline" in give("pilot", "--columns", "top1")[1]
    assert "better than" not in give("pilot", "--columns", "p")[1]
    _, text = give("pilot", "--columns", "p_mcnemar")
    assert (
        "no cell in this table and its baseline are such a pair" in " ".join(text.split())
        and "paired t-test" not in text
    )


def test_a_run_with_an_impossible_accuracy_is_left_out_and_named(sweep, give, make_run):
    sweep([make_run("seqpool", 1, 0, 0.9), make_run("ga", 1, 0, 91.0)])
    code, text = give("pilot")
    assert code == 1 and "ga" not in [row[0] for row in lines(text)]
    assert "PARTIAL: 1 planned run left out" in text.replace("\n", " ")
    assert "test/top1: expected a number in [0, 1], found 91.0" in text.replace("\n", " ")


def test_an_empty_name_is_no_sweep(sweep, give):
    sweep()
    assert give("") == (
        2,
        "headsweep: the name of a sweep is empty: expected its name, the beginning of it, or latest\n",
    )


@pytest.mark.slow
def test_a_pivot_has_the_numbers_of_the_flat_table(sweep, give):
    sweep()
    _, flat = give("pilot", "--columns", "top1")
    code, text = give("pilot", "--rows", "head", "--cols", "heads")
    assert code == 0
    numbers = {(row[0], row[1]): row[2] for row in lines(flat)[1:5]}
    assert lines(text)[:3] == [
        ["head", "heads 1", "heads 4"],
        ["seqpool", numbers["seqpool", "1"], numbers["seqpool", "4"]],
        ["ga", numbers["ga", "1"], numbers["ga", "4"]],
    ]


def test_a_pivot_shows_the_result_of_a_cell_or_its_state(sweep, give, make_run, diverge):
    folders = [make_run("seqpool", 1, 0, 0.9), make_run("seqpool", 4, 0, 0.9)]
    lost = [make_run("ga", 1, seed, 0.8) for seed in (0, 1)]
    diverge(lost[0])
    never = make_run("ga", 4, 0, None)
    sweep([*folders, *lost, never])
    _, text = give("pilot", "--rows", "head", "--cols", "heads", "--mark")
    assert lines(text)[2] == ["ga", "80.00", "not started (seed 0)"]
    assert "PARTIAL: 2 of 5 runs have no result (1 diverged, 1 not started)" in text.replace("\n", " ")


def test_everything_can_be_compared_with_one_cell(sweep, give):
    sweep()
    _, text = give("pilot", "--columns", "difference", "--baseline", "head=seqpool,heads=1")
    assert [row[2] for row in lines(text)[1:5]] == ["baseline", "+0.30", "*+2.52 ± 0.54", "*+2.82 ± 0.54"]
    assert "from the baseline (head=seqpool heads=1, and otherwise the same configuration)" in text.replace("\n", " ")
    assert "over 3 planned differences" in text.replace("\n", " ")


def test_another_measure_can_be_compared(sweep, give, make_run, write_log):
    folders = [make_run(head, 1, seed, 0.9) for head in ("seqpool", "ga") for seed in (0, 1)]
    for at, folder in enumerate(folders):
        write_log(folder, [0.1, 0.5, 0.6 + at / 100, 0.7, 0.6])
    sweep(folders)
    _, text = give("pilot", "--metric", "top1_last3", "--columns", "top1_last3,top1_best,difference")
    assert lines(text)[1][2:4] == ["63.50 ± 2.12", "70.00"]
    assert lines(text)[2][2:] == ["64.17 ± 2.12", "70.00", "+0.67"]
    assert "the best epoch is selected on the same images" in text.replace("\n", " ")


def test_too_few_epochs_are_no_mean_of_three(sweep, give, make_run, write_log):
    folder = make_run("ga", 1, 0, 0.9)
    write_log(folder, [0.1, 0.5])
    sweep([folder])
    _, text = give("pilot", "--columns", "top1_last3")
    assert lines(text)[1] == ["ga", "1", "—"]


MIXED = [
    ({"code": {"commit": "feed", "dirty": False}}, "MIXED CODE VERSIONS: abc123 (2 runs), feed (1 run)"),
    ({"precision": "bfloat16"}, "MIXED PRECISIONS: float32 (2 runs), bfloat16 (1 run)"),
    ({"duration": "30 epochs"}, "DIFFERENT DURATIONS: 10 epochs, 30 epochs"),
    ({"dataset__name": "cifar10"}, "DIFFERENT DATA: digits-"),
    ({"debug__train_images": 100}, "DIFFERENT DATA: digits-"),
    ({"seed": 7}, "UNEQUAL SEED SETS: 0 (2 cells); 7 (1 cell)"),
]


@pytest.mark.parametrize(("unlike", "sentence"), MIXED, ids=[row[1].partition(":")[0] + str(row[0]) for row in MIXED])
def test_inconsistent_runs_are_refused_and_compared_with_mark(sweep, give, make_run, unlike, sentence):
    seed = unlike.pop("seed", 0) if "seed" in unlike else 0
    sweep([make_run("seqpool", 1, 0, 0.9), make_run("ga", 1, 0, 0.9), make_run("gap", 1, seed, 0.9, **unlike)])
    code, text = give("pilot")
    assert code == 2
    assert text.startswith("headsweep: inconsistent runs: ") and text.count("\n") == 1
    assert sentence in text and "--mark" in text
    code, text = give("pilot", "--mark")
    assert code == 0 and sentence in text.replace("\n", " ")


def test_an_axis_of_the_sweep_is_no_inconsistency(sweep, give, make_run):
    folders = [make_run("ga", 1, 0, 0.9, duration=f"{epochs} epochs") for epochs in (10, 30)]
    sweep(folders, axes=("duration",))
    assert give("pilot")[0] == 0
    sweep(folders)
    assert give("pilot")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["md", "tex", "html", "json", "csv"])
def test_a_written_table_is_verified_until_a_digit_is_changed(sweep, give, tmp_path, ending):
    sweep()
    file = tmp_path / f"table.{ending}"
    options = ["--columns", "parameters,top1,difference,p", "--baseline", "head=seqpool"] if ending != "csv" else []
    assert give("pilot", *options, "--write", file)[0] == 0
    source = ["pilot"] if ending == "csv" else []
    assert give(*source, "--verify", file) == (0, f"{file}: 1 table agrees with the runs\n")
    text = file.read_text()
    digit = "0.9272" if ending in ("csv", "json") else "92.72"
    assert digit in text
    file.write_text(text.replace(digit, digit[:-1] + "9", 1))
    code, printed = give(*source, "--verify", file)
    assert code == 1
    assert re.search(rf"table\.{ending}:\d+: expected '.*{digit}.*' from the runs, found '", printed)


@pytest.mark.slow
def test_tables_within_a_paper_are_verified(sweep, give, tmp_path):
    folders = sweep()
    for name, options in (("a", []), ("b", ["--rows", "head", "--cols", "heads"])):
        give("pilot", *options, "--write", tmp_path / f"{name}.tex")
    paper = tmp_path / "paper.tex"
    paper.write_text("\\begin{document}\nWe see\n" + "and\n".join((tmp_path / f"{n}.tex").read_text() for n in "ab"))
    assert give("--verify", paper)[1] == f"{paper}: 2 tables agree with the runs\n"
    paper.write_text("\n".join(f"  {line}" for line in paper.read_text().splitlines()))
    assert give("--verify", paper)[1] == f"{paper}: 2 tables agree with the runs\n"
    result = folders[-1].result()
    folders[-1].finish(replace(result, metrics={**result.metrics, "test/top1": 0.5}))
    code, printed = give("--verify", paper)
    assert code == 1 and printed.count("from the runs, found") >= 2


def test_tables_that_a_paper_includes_are_verified(sweep, give, tmp_path, monkeypatch):
    sweep()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    give("pilot", "--write", "tables/all.tex")
    give("pilot", "--columns", "top1", "--write", "tables/short.tex")
    (tmp_path / "section.tex").write_text("\\input tables/short\n\\include{paper}\n")  # and back again
    (tmp_path / "tables" / "part.tex").write_text("\\input{beside}\n")
    for name in ("beside", "quoted", "imported", "with.dot"):
        (tmp_path / "tables" / f"{name}.tex").touch()
    (tmp_path / "paper.tex").write_text(
        "\\input{glyphtounicode}\n\\includegraphics{plot}\n"
        "100\\% \\input{tables/all.tex} \\include{section} % \\input{old}\n"
        f'a line \\\\% \\input{{old}}\n\\input "tables/quoted" \\input{{{"a" * 300}}}\\input{{latin}}\n'
        "\\subfile{tables/part} \\import*{tables/}{with.dot} \\subimport{./tables}{imported}\n"
        "\\end{document} \\input{old}\n"
    )
    (tmp_path / "latin.tex").write_bytes(b"caf\xe9")
    code, printed = give("--verify", "paper.tex")
    assert code == 0 and "paper.tex: 2 tables in 9 files agree with the runs\n" in printed
    assert (
        printed.count("was not read") == 3
        and "old" not in printed
        and "paper.tex: the input glyphtounicode is no file in ." in printed
    )
    short = tmp_path / "tables" / "short.tex"
    short.write_text(short.read_text().replace("92.72", "99.99"))
    code, printed = give("--verify", "paper.tex")
    assert code == 1 and re.search(
        r"^headsweep: tables/short\.tex:\d+: expected '.*92.72.*99.99", printed, re.MULTILINE
    )
    short.write_text(short.read_text().rpartition("% end of")[0])
    code, printed = give("--verify", "paper.tex")
    assert code == 2 and printed.startswith("headsweep: tables/short.tex: expected 1 table, found 0: ")


FIRST = "headsweep table pilot --rows head --cols heads"
END = "end of headsweep table"
SPOILED = {  # change of the second of two tables -> message
    "no first comment": (FIRST, "", "the table that ends at line .* has no comment 'headsweep table \\.\\.\\.' above"),
    "no last comment": (END, "", "the table that begins at line .* has no comment 'end of headsweep table' below"),
    "twice a first comment": (FIRST, FIRST + "{after}\n{before}" + FIRST, "the table that begins at line .* has no"),
    "twice a last comment": (END, END + "{after}\n{before}" + END, "the table that ends at line .* has no comment"),
    "text after a comment": (END + "{after}", END + "{after} {before}", "begins at line|has other text"),
    "another last comment": (END, END + "s", "begins at line|has other text"),
    "text before a comment": ("{before}" + FIRST, "See {before}" + FIRST, "line .* has other text beside its comment"),
}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["md", "tex", "html"])
def test_a_table_that_is_not_between_its_comments_is_an_error_that_counts_the_tables(sweep, give, tmp_path, ending):
    sweep()
    before, after = ("% ", "") if ending == "tex" else ("<!-- ", " -->")
    give("pilot", "--write", tmp_path / f"a.{ending}")
    give("pilot", "--rows", "head", "--cols", "heads", "--write", tmp_path / f"b.{ending}")
    whole, other = ((tmp_path / f"{name}.{ending}").read_text().replace("92.72", "99.99") for name in "ba")
    whole, paper = whole.replace("99.99", "92.72"), tmp_path / f"paper.{ending}"
    for name, (old, new, message) in SPOILED.items():
        old, new = (words.replace("{before}", before).replace("{after}", after) for words in (old, new))
        assert whole.count(old) == 1
        paper.write_text(other + whole.replace(old, new))
        code, printed = give("--verify", paper)
        assert code == 2 and printed.count("\n") == 1, name
        assert re.search(rf"paper\.{ending}: expected [23] tables, found [12]: .*({message})", printed), (name, printed)


@pytest.mark.parametrize("ending", ["md", "tex", "html"])
def test_a_table_without_its_comments_is_recognized_and_refused(sweep, give, tmp_path, ending):
    sweep()
    file = tmp_path / f"a.{ending}"
    give("pilot", "--write", file)
    table = file.read_text()
    bare = "\n".join(table.splitlines()[1:-1]).replace("92.72", "99.99")
    file.write_text(f"{table}\n{bare}\n")
    code, printed = give("--verify", file)
    assert code == 2 and "expected 2 tables, found 1: the table at line" in printed


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["md", "tex", "html"])
def test_a_changed_command_or_footnote_is_a_difference_and_blanks_are_none(sweep, give, tmp_path, ending):
    sweep()
    file = tmp_path / f"a.{ending}"
    give("pilot", "--columns", "n,top1", "--write", file)
    text = file.read_text()
    for old, new in (
        ("n,top1", "top1,n"),
        ("(Holm)", "(none)"),
        ("table pilot", "table pil"),
        ("n,top1", "n,top1 --metric top5"),
    ):
        assert old in text
        file.write_text(text.replace(old, new))
        code, printed = give("--verify", file)
        assert code == 1 and "from the runs, found" in printed, old
    for option in ("--help", "--old"):
        file.write_text(text.replace("n,top1", f"n,top1 {option}", 1))
        code, printed = give("--verify", file)
        assert code == 2 and "is not a command of this version" in printed and printed.count("\n") == 1
    loose = "\ufeff" + "".join(f"  {line}  \r\n\r\n" for line in text.splitlines())
    file.write_bytes(loose.encode())
    assert give("--verify", file)[0] == 0


@pytest.mark.slow
def test_text_about_the_command_is_no_comment_of_a_table(sweep, give, tmp_path):
    sweep()
    file = tmp_path / "a.md"
    give("pilot", "--write", file)
    file.write_text(f"Made by\n\n    headsweep table pilot\n\n{file.read_text()}\nend of headsweep table\n")
    assert give("--verify", file) == (0, f"{file}: 1 table agrees with the runs\n")


MISTAKES = [
    (["--columns", "top2"], "--columns top2: unknown column; known: parameters, head_parameters"),
    (["--columns", ","], "--columns ',': expected names of columns; known: parameters"),
    (["--columns", ""], "--columns '': expected names of columns; known: parameters"),
    (["--metric", "loss"], "--metric loss: unknown metric; known: top1"),
    (["--baseline", "seqpool"], "--baseline 'seqpool': expected KEY=VALUE"),
    (["--baseline", "haeds=1"], "--baseline haeds: unknown key; did you mean heads or head?"),
    (["--baseline", ""], "--baseline '': expected KEY=VALUE"),
    (["--baseline", "head=cls"], "--baseline head=cls: no such cell among 4; head is seqpool, ga"),
    (["--rows", "head"], "the cells differ in heads, too"),
    (["--rows", "head", "--cols", "width"], "width: no cell has this key; the cells differ in: head, heads"),
    (["--rows", "head", "--cols", "head"], "--rows head --cols head: expected each axis in one of the two"),
    (
        ["--write", "table.doc"],
        "table.doc: expected a file name with one of the suffixes .md, .csv, .tex",
    ),
    (
        ["--write", "table.md", "--format", "csv"],
        "--format csv --write table.md: expected a file name for csv",
    ),
    (["--verify", "README"], "README: expected a file name with one of the suffixes"),
    (["--verify", "none.md"], "none.md: cannot be read"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_is_one_line_and_writes_nothing(sweep, give, tmp_path, monkeypatch, options, message):
    sweep()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, text = give("pilot", *options)
    assert code == 2
    assert text.startswith(f"headsweep: {message}") and text.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_without_a_table_is_refused(sweep, give, tmp_path):
    sweep()
    (tmp_path / "a.md").write_text("# No table\n")
    assert "a.md: no table found; write one with" in give("--verify", tmp_path / "a.md")[1]
    (tmp_path / "b.md").write_text("<!-- headsweep table pilot -->\n| a |\n")
    assert (
        "b.md: expected 1 table, found 0: the table that begins at line 1 has no comment 'end of"
        in (give("--verify", tmp_path / "b.md")[1])
    )
    (tmp_path / "c.json").write_text("[]")
    assert "c.json: expected a table written by headsweep" in give("--verify", tmp_path / "c.json")[1]
    (tmp_path / "d.md").write_text("<!-- headsweep table pilot --old -->\n<!-- end of headsweep table -->\n")
    assert "is not a command of this version" in give("--verify", tmp_path / "d.md")[1]


def test_json_has_every_run_and_full_precision(sweep, give):
    folders = sweep()
    content = json.loads(give("pilot", "--format", "json")[1])
    assert content["made_by"] == "headsweep table pilot"
    assert [run for row in content["rows"] for run in row["fingerprints"]] == [folder.path.name for folder in folders]
    assert content["rows"][2]["top1_mean"] == pytest.approx(sum(GA) / 5 + 0.001, abs=1e-15)


def test_html_is_well_formed_and_escapes(sweep, give, make_run):
    sweep([make_run("ga", 1, 0, 0.9, optimizer__lr="<b>&"), make_run("ga", 1, 0, 0.8)])
    text = give("pilot", "--format", "html")[1]
    assert "&lt;b&gt;&amp;" in text and "<b>" not in text
    open_tags = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Checker().feed(text)
    assert open_tags == []


@pytest.mark.slow
def test_latex_compiles_without_a_warning(sweep, give, make_run, tmp_path):
    if shutil.which("pdflatex") is None:
        assert not os.environ.get("HEADSWEEP_REQUIRE_LATEX"), "pdflatex is missing (texlive-science)"
        pytest.skip("needs pdflatex with siunitx (Debian: texlive-science)")
    strange = [make_run("a_b", 4, seed, top1, optimizer__lr="50%&{~^$#\\") for seed, top1 in enumerate(GA)]
    strange += [make_run("[1]|\n\\input{x}\x1b", 4, seed, top1 - 0.1) for seed, top1 in enumerate(GA)]
    sweep([*sweep(), *strange])
    give("pilot", "--write", tmp_path / "flat.tex")
    give(
        "pilot",
        "--rows",
        "head,optimizer.lr",
        "--cols",
        "heads",
        "--columns",
        "top1,difference",
        "--write",
        tmp_path / "pivot.tex",
    )
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage[landscape,margin=5mm]{geometry}\\usepackage{booktabs,siunitx}"
        "\\begin{document}\\input{flat.tex}\n\n\\input{pivot.tex}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stdout[-2000:]
    assert "Warning" not in answer.stdout
    assert Path(tmp_path / "paper.pdf").stat().st_size > 10_000


@pytest.mark.slow
def test_a_missing_folder_makes_the_sweep_partial_and_keeps_the_correction(sweep, give):
    folders = sweep()
    whole = json.loads(give("pilot", "--format", "json")[1])["rows"][2]["difference_p_holm"]
    for folder in folders[15:]:  # the cell ga, 4 heads
        shutil.rmtree(folder.path)
    code, text = give("pilot", "--format", "json")
    assert code == 0
    assert "PARTIAL: the folders of 5 planned runs are missing" in text
    assert json.loads(text)["rows"][2]["difference_p_holm"] >= whole
    shutil.rmtree(folders[0].path)  # other cells now have a seed more
    assert give("pilot")[0] == 0


@pytest.mark.parametrize("value", [float("nan"), None])
def test_a_finished_run_without_the_number_is_not_counted(sweep, give, value):
    folders = sweep()
    result = folders[0].result()
    metrics = {key: number for key, number in result.metrics.items() if key != "test/top1"}
    folders[0].finish(replace(result, metrics=metrics | ({} if value is None else {"test/top1": value})))
    _, text = give("pilot", "--columns", "n,top1")
    assert lines(text)[1][2] == "4/5"
    assert read_cells(folders)[0].by_seed("test/top1").keys() == {1, 2, 3, 4}
    assert "NO VALUE: 1 finished run without a finite top-1, not counted in n" in text.replace("\n", " ")


DAMAGED = [
    "",
    "[]",
    '{"state": "finished"}',
    '{"state": "finished", "metrics": {"test/top1": "a"}, "epochs": 1, "steps": 1}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_run_with_a_damaged_result_is_left_out_and_named(sweep, give, content):
    folders = sweep()
    (folders[0].path / "result.json").write_text(content)
    code, text = give("pilot")
    assert code == 1 and len(lines(text)) > 4
    assert "PARTIAL: 1 planned run left out" in text.replace("\n", " ")
    assert text.splitlines()[-1].startswith(f"headsweep: damaged: {folders[0].path / 'result.json'}, ")


@pytest.mark.slow
def test_a_damaged_plan_history_or_comment_is_one_line(sweep, give, tmp_path):
    folders = sweep()
    folders[0].metrics_log.path.write_text('{"epoch": 1\n{"epoch": 2}\n')
    code, text = give("pilot", "--columns", "top1_last3")
    assert code == 1 and f"headsweep: damaged: {folders[0].metrics_log.path}, a line of it: " in text
    (tmp_path / "a.tex").write_text("% headsweep table pilot --columns 'a\n% end of headsweep table\n")
    code, text = give("--verify", tmp_path / "a.tex")
    assert code == 2 and text.count("\n") == 1 and "No closing quotation" in text
    (tmp_path / "sweeps" / "pilot" / "plan.json").write_text("{")
    code, text = give("pilot")
    assert code == 2 and text.count("\n") == 1 and "plan.json" in text


@pytest.fixture
def small(sweep, make_run):
    """A sweep of two heads with three seeds each; its folders."""
    tops = (("seqpool", SEQPOOL[:3]), ("ga", GA[:3]))
    return sweep([make_run(head, 1, seed, top1) for head, values in tops for seed, top1 in enumerate(values)])


def test_a_margin_adds_verdicts_and_is_part_of_the_command(small, give, tmp_path):
    assert "verdict" not in give("pilot")[1]
    _, text = give("pilot", "--margin", "0.3")
    assert "better" in text and "Verdict at a margin of 0.3 points" in text
    assert "POST HOC: margin given after 6 runs had finished" in text
    path = tmp_path / "table.tex"
    assert "--margin 0.3" in give("pilot", "--margin", "0.3", "--write", path)[1]
    assert "verdict" in path.read_text() and "--margin 0.3" in path.read_text()
    assert give("--verify", path)[0] == 0
    path = tmp_path / "table.csv"
    give("pilot", "--margin", "0.3", "--write", path)
    assert "difference_p_equivalent_holm" in path.read_text()
    assert give("pilot", "--margin", "0.3", "--verify", path)[0] == 0
    assert give("pilot", "--margin", "0.4", "--verify", path)[0] == 1


@pytest.mark.parametrize("margin", ["0", "-1", "100", "nan"])
def test_a_margin_is_in_points(small, give, margin):
    code, text = give("pilot", "--margin", margin)
    assert (code, text.splitlines()) == (
        2,
        [f"headsweep: --margin {margin}: expected percentage points in (0, 100), e.g. 0.3"],
    )


def test_a_margin_that_the_study_declares_needs_no_option_and_is_not_post_hoc(small, give, tmp_path):
    runs = [folder.path.name for folder in small]
    plan = {"axes": ["head.name", "heads"], "runs": runs, "design": {"margin": {"points": 0.3, "finished": 0}}}
    atomic_files.write_json(tmp_path / "sweeps" / "pilot" / "plan.json", plan)
    for arguments in ([], ["--margin", "0.3"]):
        _, text = give("pilot", *arguments)
        assert "Verdict at a margin of 0.3 points" in text and "POST HOC" not in text
    assert "POST HOC" in give("pilot", "--margin", "0.5")[1]
    plan["design"]["margin"]["finished"] = 3
    atomic_files.write_json(tmp_path / "sweeps" / "pilot" / "plan.json", plan)
    assert "POST HOC: margin given after 3 runs had finished" in give("pilot")[1]


def test_the_probability_of_a_better_run_has_its_own_column(small, give):
    _, text = give("pilot", "--columns", "p_better")
    assert lines(text)[2] == ["ga", "1", "1.00 (0.29 to 1.00)"]
    assert "P(better) is the probability" in text


def test_damaged_predictions_leave_their_run_out_of_a_table_that_reads_them(small, give):
    for folder in small:
        folder.write_test_correct(np.arange(40) % 10 > 0)
    small[0].correct.write_bytes(b"damaged")
    code, text = give("pilot", "--columns", "n,top1_images")
    assert code == 1 and "test_correct.npy" in text and lines(text)[1][:3] == ["seqpool", "1", "2"]
    assert give("pilot", "--columns", "n,top1")[0] == 0
