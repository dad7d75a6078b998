"""A table claims no more than its runs support, and has every planned run."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
from rendering import as_csv, as_markdown, on_screen
from scipy import stats

from headsweep.errors import UserError
from headsweep.report.formats import csv, files
from headsweep.report.read.cells import gather, read_cells
from headsweep.report.request import Request
from headsweep.report.stats.inference import holm, mcnemar_p
from headsweep.report.table.build import build
from headsweep.report.table.inconsistencies import inconsistencies
from headsweep.report.table.layout import flat
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord

SEQPOOL = [0.90, 0.91, 0.89, 0.905, 0.90]
GA = [0.925, 0.931, 0.921, 0.926, 0.928]  # better for every seed, by nearly as much
SEQATTN = [0.89, 0.93, 0.91, 0.88, 0.92]  # now better, now worse


@pytest.fixture
def study(make_run):
    """Three heads, two counts, five seeds."""
    return [
        make_run(head, heads, seed, top1 + heads / 1000)
        for head, tops in (("seqpool", SEQPOOL), ("ga", GA), ("seqattn", SEQATTN))
        for heads in (1, 4)
        for seed, top1 in enumerate(tops)
    ]


def read_markdown(table):
    lines = [line for line in as_markdown(table).splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_rows_are_in_the_order_of_the_plan(study):
    rows = build(study).rows
    assert [(row.head, row.heads) for row in rows] == [
        (head, heads) for head in ("seqpool", "ga", "seqattn") for heads in (1, 4)
    ]
    assert build(study[::-1]).rows[0].head == "seqattn"


def test_numbers_are_means_over_seeds_with_t_intervals(study):
    row = build(study).rows[2]
    values = [top1 + 0.001 for top1 in GA]
    half = stats.sem(values) * stats.t.ppf(0.975, 4)
    assert row.top1.mean == pytest.approx(statistics.mean(values), abs=1e-12)
    assert row.top1.half_width == pytest.approx(half, abs=1e-12)
    assert row.top1.n == 5
    assert row.top5.half_width == pytest.approx(half / 2, abs=1e-12)
    assert row.costs["images_per_second"] == 1002.0
    assert (row.parameters, row.costs["flops"], row.costs["head_flops"]) == (283_723, 7_500_000, 750_000)


def test_differences_are_paired_to_the_first_head_at_the_same_count_and_corrected(study):
    rows = build(study).rows
    assert [row.is_baseline for row in rows] == [True, True, False, False, False, False]
    assert [row.difference is None for row in rows] == [True, True, False, False, False, False]
    ga, seqattn = stats.ttest_rel(GA, SEQPOOL), stats.ttest_rel(SEQATTN, SEQPOOL)
    assert rows[3].difference.mean == pytest.approx(statistics.mean(GA) - statistics.mean(SEQPOOL), abs=1e-12)
    assert rows[3].difference.p == pytest.approx(ga.pvalue, rel=1e-6)
    assert rows[3].p == pytest.approx(4 * ga.pvalue, rel=1e-6)  # Holm: the least of four p times four
    assert rows[5].difference.p == pytest.approx(seqattn.pvalue, rel=1e-6)
    assert [row.p for row in rows[2:]] == holm([row.difference.p for row in rows[2:]])


def test_bold_is_only_what_a_corrected_p_supports(study):
    rows = read_markdown(build(study))
    assert [row["top-1 %"].startswith("**") for row in rows] == [False, False, True, True, False, False]
    assert [row["Δ top-1"].startswith("**") for row in rows] == [False, False, True, True, False, False]


def test_a_head_that_is_worse_is_not_bold(make_run):
    folders = [make_run("ga", 1, seed, top1) for seed, top1 in enumerate(GA)]
    folders += [make_run("seqpool", 1, seed, top1) for seed, top1 in enumerate(SEQPOOL)]
    table = build(folders)
    assert table.rows[1].p < 0.05
    assert "**" not in as_markdown(table)


def test_a_difference_that_only_the_uncorrected_p_supports_is_not_bold(make_run):
    folders = [make_run("seqpool", 1, seed, top1) for seed, top1 in enumerate(SEQPOOL)]
    for lr in (1, 2, 3, 4):
        folders += [make_run("seqpool", heads, seed, top1) for heads in [lr + 1] for seed, top1 in enumerate(SEQPOOL)]
        tops = [t + d for t, d in zip(SEQPOOL, [0.002, 0.012, 0.001, 0.014, 0.012], strict=True)]
        folders += [make_run("ga", lr + 1, seed, top1) for seed, top1 in enumerate(tops)]
    table = build(folders)
    compared = [row for row in table.rows if row.difference]
    assert len(compared) == 4
    assert all(row.difference.p < 0.05 < row.p for row in compared)
    assert "**" not in as_markdown(table)


def test_one_seed_has_no_interval_no_p_and_no_bold(make_run):
    table = build([make_run("seqpool", 1, 0, 0.9), make_run("ga", 1, 0, 0.99)])
    text = as_markdown(table)
    assert "±" not in text
    assert "**" not in text
    assert "p" not in read_markdown(table)[0]
    assert read_markdown(table)[1]["Δ top-1"] == "+9.00"
    assert "One seed (n = 1)" in text
    assert table.rows[1].difference.p is None


def test_one_run_against_one_run_is_mcnemar_and_never_bold(make_run):
    folders = [make_run("seqpool", 1, 0, 0.8), make_run("ga", 1, 0, 0.9), make_run("gap", 1, 0, 0.9)]
    right = np.random.default_rng(0).random((2, 500)) < [[0.8], [0.95]]
    for folder, correct in zip(folders, right, strict=False):
        folder.write_test_correct(correct)
    table = build(folders)
    assert [row.mcnemar_p for row in table.rows] == [None, min(1.0, 2 * mcnemar_p(*right)), None]
    text = as_markdown(table)
    assert "p McNemar*" in text and "not for the two heads" in text
    assert "**" not in text
    twice = build([*folders, make_run("ga", 1, 1, 0.9)])
    assert all(row.mcnemar_p is None for row in twice.rows)
    assert "McNemar" not in as_markdown(twice)


@pytest.mark.parametrize(("n", "reach"), [(2, "0.5"), (3, "0.25"), (5, "0.0625")])
def test_the_smallest_p_that_n_can_reach_is_in_a_footnote(make_run, n, reach):
    folders = [make_run("seqpool", 1, seed, top1) for seed, top1 in enumerate(SEQPOOL[:n])]
    folders += [make_run("ga", 1, seed, top1) for seed, top1 in enumerate(GA[:n])]
    assert f"can reach is {reach} with n = {n}" in as_markdown(build(folders))


def test_only_common_seeds_are_compared_and_their_number_is_shown(make_run):
    folders = [make_run("seqpool", 1, seed, SEQPOOL[seed]) for seed in (0, 1, 2)]
    folders += [make_run("ga", 1, seed, GA[seed]) for seed in (1, 2, 3, 4)]
    table = build(folders)
    row = table.rows[1]
    assert (row.top1.n, row.difference.n) == (4, 2)
    assert row.difference.p == pytest.approx(stats.ttest_rel(GA[1:3], SEQPOOL[1:3]).pvalue, rel=1e-6)
    assert read_markdown(table)[1]["Δ top-1"].endswith("(n=2)")


def test_no_reference_at_this_count_is_no_difference(make_run):
    table = build([make_run("seqpool", 1, 0, 0.9), make_run("ga", 8, 0, 0.99)])
    assert table.rows[1].difference is None
    assert read_markdown(table)[1]["Δ top-1"] == "—"


def test_runs_without_a_result_are_rows_with_their_state(make_run, diverge):
    folders = [make_run("seqpool", 1, seed, SEQPOOL[seed]) for seed in range(3)]
    ga = [make_run("ga", 1, seed, GA[seed]) for seed in range(3)]
    diverge(ga[1])
    late = [make_run("gap", 1, seed, None) for seed in range(3)]
    late[0].fail("ValueError: no")
    late[1].checkpoint.write_bytes(b"weights")
    table = build(folders + ga + late)
    assert [(row.head, row.state, row.seeds) for row in table.rows] == [
        ("seqpool", "finished", (0, 1, 2)),
        ("ga", "finished", (0, 2)),
        ("ga", "diverged", (1,)),
        ("gap", "failed", (0,)),
        ("gap", "unfinished", (1,)),
        ("gap", "not started", (2,)),
    ]
    rows = read_markdown(table)
    assert [row["head"] for row in rows] == ["seqpool", "ga", "gap"], "a cell is one row"
    assert (rows[1]["n"], rows[1]["failed"]) == ("2/3", "1/3")
    assert rows[2]["top-1 %"] == "failed (seed 0), unfinished (seed 1), not started (seed 2)"
    pivot = Request("x", rows="head", cols="heads").sheet(table)
    assert pivot.rows[2][1].text == rows[2]["top-1 %"]
    assert "4 of 9 runs have no result" in as_markdown(table)
    assert [row["state"] for row in as_csv(table)] == [row.state for row in table.rows]


def test_seeds_without_a_number_of_a_cell_with_numbers_are_named_below_the_table(make_run):
    ga = [make_run("ga", 1, seed, 0.9 if seed < 2 else None) for seed in range(5)]
    ga[2].fail("ValueError: no")
    alone = make_run("gap", 1, 0, None)
    notes = flat(build([*ga, alone])).notes()
    assert "NOT IN ANY MEAN: head=ga heads=1 (seed 2 failed, seeds 3-4 not started)." in notes


def test_a_running_run_is_a_row(make_run):
    folder = make_run("ga", 1, 0, None)
    with folder.lock():
        assert build([folder]).rows[0].state == "running"


def test_a_study_without_any_result_has_no_numbers(make_run, diverge):
    folder = make_run("ga", 1, 0, 0.9)
    diverge(folder)
    table = build([folder, make_run("seqpool", 1, 0, 0.9)])
    assert table.rows[0].top1 is None
    assert table.rows[1].difference is None


def test_axes_that_vary_get_a_column_and_split_the_comparison(make_run):
    folders = [
        make_run(head, 1, seed, top1, optimizer__lr=lr)
        for head, tops in (("seqpool", SEQPOOL), ("ga", GA))
        for lr in (0.001, 0.01)
        for seed, top1 in enumerate(tops[: 3 if lr == 0.01 else 5])
    ]
    table = build(folders)
    assert table.axes == ("optimizer.lr",)
    assert [row.axes for row in table.rows] == [("0.001",), ("0.01",)] * 2
    assert [row.difference.n for row in table.rows[2:]] == [5, 3]


def test_values_implied_by_the_head_or_the_model_are_no_axis(make_run):
    folders = [make_run("seqpool", 1, 0, 0.9, parameters={"model.width": 128})]
    folders += [make_run("ga", 1, 0, 0.9, parameters={"head.gram_dim": 192})]
    assert build(folders).axes == ()
    small = {"model__name": "cct_4", "model__width": 64, "parameters": {"model.width": 64}}
    assert build([*folders, make_run("ga", 1, 1, 0.9, **small)]).axes == ("model.name",)


def test_an_option_of_a_head_is_an_axis_but_does_not_hide_the_reference(make_run):
    folders = [make_run("seqpool", 1, 0, 0.9)]
    for dim in (64, 192):
        folders.append(make_run("ga", 1, 0, 0.9 + dim / 10000, head__gram_dim=dim, parameters={"head.gram_dim": dim}))
    table = build(folders)
    assert table.axes == ("head.gram_dim",)
    assert [row.axes for row in table.rows] == [("—",), ("64",), ("192",)]
    assert all(row.difference for row in table.rows[1:])


def test_two_cells_never_look_the_same(make_run):
    """A changed default is a new run: what differs is an axis, though no sweep varied it."""
    folders = [make_run("ga", 1, 0, 0.9), make_run("ga", 1, 0, 0.8, clip_norm=1.0, paths__output="/elsewhere")]
    table = build(folders)
    assert table.axes == ("clip_norm",)
    assert [row.axes for row in table.rows] == [("—",), ("1.0",)]


def test_axes_of_the_plan_come_first_even_if_they_do_not_vary(make_run):
    folders = [make_run("ga", 1, 0, 0.9), make_run("ga", 1, 0, 0.9, optimizer__lr=0.01)]
    assert build(folders, ["head", "heads", "seed", "model"]).axes == ("model", "optimizer.lr")
    assert build(folders, ["model"]).rows[0].axes == ("cct_2_3x2", "0.001")


def test_a_folder_that_is_given_twice_counts_once(make_run):
    folder = make_run("ga", 1, 0, 0.9)
    assert build([folder, folder]).rows[0].seeds == (0,)


def test_mixed_code_versions_are_in_a_footnote(make_run):
    same = [make_run("ga", 1, 0, 0.9), make_run("gap", 1, 0, 0.9)]
    assert "MIXED CODE" not in as_markdown(build(same))
    other = make_run("seqpool", 1, 0, 0.9, code={"commit": "0123456789abcdef", "dirty": False})
    assert "MIXED CODE VERSIONS: abc123 (2 runs), 0123456789 (1 run)" in as_markdown(build([*same, other]))
    dirty = make_run("seqattn", 1, 0, 0.9, code={"commit": "abc123", "dirty": True})
    assert "MIXED CODE VERSIONS: abc123 (2 runs), abc123-dirty (1 run)" in as_markdown(build([*same, dirty]))
    assert "dirty working tree (abc123-dirty)" in as_markdown(build([dirty]))
    changed = [
        make_run("seqattn", 1, seed, 0.9, code={"commit": "abc123", "dirty": True, "changes": patch})
        for seed, patch in enumerate(("0123456789abcdef", "fedcba9876543210"), 1)
    ]
    versions = "abc123-dirty-01234567 (1 run), abc123-dirty-fedcba98 (1 run)"
    assert f"MIXED CODE VERSIONS: {versions}" in as_markdown(build(changed)), "of the same commit"


def test_versions_of_a_package_are_compared_among_the_runs_that_use_it(make_run):
    code = {"commit": "abc123", "dirty": False}
    without = make_run("seqpool", 1, 0, 0.9, code=code)
    old, new = (
        make_run("ga", 1, seed, 0.9, code=code | {"packages": {"lab-heads": version}})
        for seed, version in enumerate(("1.0 aaaa", "1.1 bbbb"))
    )
    assert "MIXED" not in as_markdown(build([without, old]))
    mixed = as_markdown(build([without, old, new]))
    assert "MIXED VERSIONS OF lab-heads: 1.0 aaaa (1 run), 1.1 bbbb (1 run)." in mixed and "MIXED CODE" not in mixed


def test_mixed_precisions_are_in_a_footnote(make_run):
    same = [make_run("ga", 1, 0, 0.9), make_run("ga", 1, 1, 0.9)]
    older = make_run("ga", 1, 2, 0.9)
    older.finish(replace(older.result(), environment={}))  # it recorded none
    assert "PRECISIONS" not in as_markdown(build([*same, older]))
    mixed = [*same, older, make_run("gap", 1, 0, 0.9, precision="bfloat16")]
    assert "MIXED PRECISIONS: float32 (2 runs), bfloat16 (1 run). Differences" in as_markdown(build(mixed))


def test_of_an_axis_precisions_are_compared_within_each_value(make_run):
    def kinds(*pairs: tuple[str, str]) -> list[str]:
        """Of runs with these precisions, given and used."""
        folders = [make_run("ga", 1, seed, 0.9, precision=used) for seed, (_, used) in enumerate(pairs)]
        runs = [run for cell in read_cells(folders) for run in cell.runs]
        given = [with_precision(run.record, given) for run, (given, _) in zip(runs, pairs, strict=True)]
        cells = gather(replace(run, record=record) for run, record in zip(runs, given, strict=True))
        return [one.kind for one in inconsistencies(cells, ["precision"]) if one.kind != "seeds"]

    def with_precision(record: RunRecord, given: str) -> RunRecord:
        return replace(record, group=given, config=record.config | {"precision": given})

    assert kinds(("float32", "float32"), ("bfloat16", "bfloat16")) == []
    assert kinds(("auto", "float32"), ("bfloat16", "bfloat16")) == []
    assert kinds(("auto", "float32"), ("auto", "bfloat16")) == ["precision"]


def test_different_durations_and_devices_are_in_a_footnote(make_run):
    first = make_run("ga", 1, 0, 0.9)
    longer = make_run("seqpool", 1, 0, 0.9, duration="20 epochs", device="H200")
    text = as_markdown(build([first, longer]))
    assert "DIFFERENT DURATIONS: 10 epochs, 20 epochs." in text
    assert "DIFFERENT DEVICES: cpu, H200." in text
    assert "DIFFERENT" not in as_markdown(build([first]))


def test_no_run_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="no runs to compare"):
        build([])
    with pytest.raises(UserError, match=r"nothing/run.json, expected a file, found none"):
        build([RunFolder(tmp_path / "nothing")])


def test_markdown_and_csv_agree(study, tmp_path):
    table = build(study)
    files.write(table, tmp_path)
    assert (tmp_path / "table.md").read_text().startswith(f"{as_markdown(table)}\nEffect of the number of heads\n")
    assert (tmp_path / "table.csv").read_text() == csv.write(table)
    for text, exact in zip(read_markdown(table), as_csv(table), strict=True):
        assert (text["head"], text["heads"], text["n"]) == (exact["head"], exact["heads"], exact["n"])
        mean, half = text["top-1 %"].strip("*").split(" ± ")
        assert float(mean) == pytest.approx(100 * float(exact["top1_mean"]), abs=0.00501)
        assert float(half) == pytest.approx(100 * float(exact["top1_half_width"]), abs=0.00501)
        if exact["difference_mean"]:
            shown = text["Δ top-1"].strip("*").split(" ± ")
            assert float(shown[0]) == pytest.approx(100 * float(exact["difference_mean"]), abs=0.00501)
            assert float(shown[1]) == pytest.approx(100 * float(exact["difference_half_width"]), abs=0.00501)
            assert float(text["p"].lstrip("< ")) == pytest.approx(float(exact["difference_p_holm"]), abs=0.001)
        else:
            assert text["Δ top-1"] == "baseline"


def test_csv_has_full_precision_and_the_runs(study):
    table = build(study)
    for row, exact in zip(table.rows, as_csv(table), strict=True):
        assert float(exact["top1_mean"]) == row.top1.mean
        assert float(exact["top1_half_width"]) == row.top1.half_width
        assert exact["fingerprints"].split() == list(row.fingerprints)
        assert (exact["n"], exact["planned"], exact["seeds"]) == ("5", "5", "0 1 2 3 4")


def test_a_wide_screen_shows_every_column(study):
    text = on_screen(build(study), 140)
    assert "do not fit" not in text
    assert "92.72 ± 0.46" in text
    for title in ("head", "params", "FLOPs", "images/s", "top-1 %", "top-5 %", "Δ top-1", " p"):
        assert title in text


def test_a_narrow_screen_names_the_columns_that_do_not_fit(study):
    text = on_screen(build(study), 80)
    rows = text.splitlines()[:7]
    assert all(len(line) <= 80 for line in rows)
    assert "…" not in text
    assert "Columns that do not fit: head share, top-5 %" in text
    for row, line in zip(build(study).rows, rows[1:], strict=True):
        assert f"{100 * row.top1.mean:.2f} ± {100 * row.top1.half_width:.2f}" in line


def test_flops_are_in_one_unit(make_run):
    small = [make_run("ga", heads, 0, 0.9) for heads in (1, 100)]
    assert [row["FLOPs (M)"] for row in read_markdown(build(small))] == ["7.50", "750.00"]
    large = [*small, make_run("ga", 1000, 0, 0.9)]
    assert [row["FLOPs (G)"] for row in read_markdown(build(large))] == ["0.01", "0.75", "7.50"]
    assert read_markdown(build(small))[0]["head share %"] == "10.0"


def test_brackets_in_names_are_text(make_run):
    table = build([make_run("ga", 1, 0, 0.9, optimizer__lr=value) for value in ("[red]a", "b|c")])
    assert "[red]a" in on_screen(table, 140)
    assert r"b\|c" in as_markdown(table)
