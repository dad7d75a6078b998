"""`headsweep power`: the seeds that a difference needs, what they cost, and the command that adds them."""

import json
import shutil
from dataclasses import replace

import pytest

from commands import command
from composing import compose_run
from headsweep.analysis.power import Aim, advise
from headsweep.cli import main
from headsweep.config.command_line import spell_out
from headsweep.config.study import expansion
from headsweep.errors import UserError
from headsweep.plan.plan import freeze, make_plan
from headsweep.report.stats.power import detectable, equivalence_power, not_worse_power, power, seeds_needed, spread
from headsweep.report.table.columns import MINUS
from headsweep.tracking import atomic_files
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.sweep_folder import SweepFolder
from overriding import compose_and_set

TOP1 = {"seqpool": (0.70, 0.72, 0.71), "ga": (0.71, 0.75, 0.73), "gap": (0.68, 0.74, 0.71)}
AIM = Aim(points=1.0, power=0.8, alpha=0.05, slots=2)


@pytest.fixture(autouse=True)
def composed_once(monkeypatch):
    """Compositions that differ in values alone are one, for all tests."""
    monkeypatch.setattr(expansion, "compose", compose_and_set)


def sweep(output, seeds=3, heads=TOP1, top1=TOP1) -> SweepFolder:
    """Runs of ten seconds each with made-up results."""
    cells = [compose_run(f"head={head}", f"paths.output={output}", "optimizer.lr=1e-3") for head in heads]
    plan = make_plan([replace(cell, seed=seed) for cell in cells for seed in range(seeds)])
    freeze(plan, {run.fingerprint: {} for run in plan.runs})
    for planned in plan.runs:
        value = top1[planned.run.head.name][planned.run.seed]
        planned.folder.finish(RunResult("finished", {"test/top1": value}, 1, 1, {"train_seconds": 10.0}))
    return SweepFolder(plan.folder)


@pytest.mark.slow
def test_the_most_demanding_cell_decides_and_the_command_adds_its_seeds(tmp_path):
    folder = sweep(tmp_path)
    lines = advise(folder, {}, AIM)[0].splitlines()
    wanted = [
        seeds_needed(0.01, spread(seen).deviation, 0.8, 0.025) for seen in ([0.01, 0.03, 0.02], [-0.02, 0.02, 0.0])
    ]
    assert wanted[0] < wanted[1]
    assert [line.split()[:6] for line in lines if line.startswith("head=")] == [
        ["head=ga", "heads=1", "3", "1.00", "(0.52", "to"],
        ["head=gap", "heads=1", "3", "2.00", "(1.04", "to"],
    ]
    assert [line.split()[7] for line in lines if line.startswith("head=")] == list(map(str, wanted))
    assert "corrected for 2 differences (Bonferroni: p < 0.025 each)" in lines[1]
    missing = 3 * (wanted[1] - 3)
    cost = f"seeds={wanted[1]}: {missing} more runs of 3 cells, about {missing * 10 / 2 / 60:.0f} min of training"
    (at,) = [number for number, line in enumerate(lines) if line.startswith(cost)]
    words = lines[at + 1].split()
    assert words[:3] == ["python", "src/train.py", "-m"]
    assert words[-1] == f"seeds={wanted[1]}"
    assert f"paths.output={tmp_path}" in words and "head=seqpool,ga,gap" in words and "optimizer.lr=0.001" in words
    spelled = spell_out(command(*words[2:])[2:])
    runs = [[word for word in spelled[1:-1] if "," not in word] + [f"head={head}"] for head in TOP1]
    assert make_plan([compose_run(*run) for run in runs]).name == folder.name


@pytest.mark.parametrize("is_margin", [False, True])
def test_where_the_seeds_are_out_of_reach_a_line_has_what_usual_numbers_show(is_margin: bool, tmp_path):
    folder = sweep(tmp_path)
    text = advise(folder, {}, replace(AIM, points=0.05, is_margin=is_margin))[0]
    assert "Some cells need more than 20 seeds" in text
    powers = equivalence_power if is_margin else power
    for n in (5, 10, 20):
        points = detectable(n, 0.02, 0.8, 0.025, powers)
        assert f"{100 * points:.2f} points with {n} seeds" in text, "of the cell with the largest spread"
    assert "Some cells need" not in advise(folder, {}, replace(AIM, points=9.0, is_margin=is_margin))[0]


@pytest.mark.slow
def test_another_baseline_is_another_number_of_differences(tmp_path):
    folder = sweep(tmp_path, heads=["seqpool", "ga"])
    assert "corrected" not in advise(folder, {"head": "ga"}, AIM)[0]
    assert "head=seqpool heads=1" in advise(folder, {"head": "ga"}, AIM)[0]
    with pytest.raises(UserError, match="--baseline head=cait: no such cell among 2; head is seqpool, ga"):
        advise(folder, {"head": "cait"}, AIM)


@pytest.mark.slow
def test_finished_seeds_cost_nothing(tmp_path):
    folder = sweep(tmp_path, heads=["seqpool", "ga"])
    assert "seeds=3: no run is missing" in advise(folder, {}, Aim(6.0, 0.8, 0.05, 1))[0]


@pytest.mark.slow
def test_one_seed_has_no_variance(tmp_path):
    message = r"expected two finished seeds of .*; add seeds: python src/train.py -m head=seqpool,ga,gap .* seeds=3$"
    with pytest.raises(UserError, match=message):
        advise(sweep(tmp_path, seeds=1), {}, AIM)


def test_one_cell_has_no_baseline(tmp_path):
    with pytest.raises(UserError, match="expected a cell to compare with head=seqpool, found none"):
        advise(sweep(tmp_path, heads=["seqpool"]), {}, AIM)


@pytest.mark.slow
def test_a_settled_comparison_with_a_large_spread_needs_no_seeds(tmp_path):
    """One cell is far below its baseline and scatters; the answer for the other does not depend on it."""
    settled = {**TOP1, "gap": (0.10, 0.32, 0.21)}
    text = advise(sweep(tmp_path, top1=settled), {}, AIM)[0]
    needed = seeds_needed(0.01, 0.01, 0.8, 0.025)
    rows = [line.split() for line in text.splitlines() if line.startswith("head=")]
    assert [row[7] for row in rows] == [str(needed), "settled"]
    assert f"settled, left out below: head=gap heads=1 ({MINUS}50.00, p = 0.026)" in text
    assert f"\nseeds={needed}: " in text


def test_what_the_table_withholds_is_not_settled(tmp_path):
    """A seed failed; then its folder is lost, which may have been a comparison of its own."""
    folder = sweep(tmp_path, 4, ["seqpool", "ga"], {"seqpool": (0.7, 0.72, 0.71, 0.7), "ga": (0.9, 0.93, 0.91, 0.9)})
    assert "settled, left out below: head=ga heads=1" in advise(folder, {}, AIM)[0]
    last = folder.runs()[-1]
    (last.path / "result.json").unlink()
    last.fail("RuntimeError: out of memory")
    text = advise(folder, {}, AIM)[0]
    assert "undecided in the table, whatever the p: head=ga heads=1 (1 of 4 seeds failed)" in text
    assert "settled" not in text
    shutil.rmtree(last.path)
    text = advise(folder, {}, AIM)[0]
    assert "corrected for 2 differences" in text and "head=ga heads=1 (seed 3 missing)" in text


def test_a_small_spread_is_not_shown_as_none(tmp_path):
    top1 = {"seqpool": (0.7, 0.7, 0.7), "ga": (0.70002, 0.70003, 0.70002)}
    text = advise(sweep(tmp_path, 3, ["seqpool", "ga"], top1), {}, AIM)[0]
    assert "0.0006 (0.0003 to 0.0036)" in text and "(+0.002, p = 0.02)" in text


@pytest.mark.slow
def test_a_margin_needs_seeds_to_be_shown(tmp_path):
    lines = advise(sweep(tmp_path), {}, replace(AIM, points=3.0, is_margin=True))[0].splitlines()
    assert "is within 3 points of top-1" in lines[0]
    wanted = [
        [seeds_needed(0.03, deviation, 0.8, 0.025, of) for of in (not_worse_power, equivalence_power)]
        for deviation in (0.01, 0.02)
    ]
    assert [line.split()[7:9] for line in lines if line.startswith("head=")] == [list(map(str, it)) for it in wanted]
    assert any(line.startswith(f"not worse: seeds={wanted[1][0]}: ") for line in lines)
    assert any(line.startswith(f"equivalent: seeds={wanted[1][1]}: ") for line in lines)


def test_the_command_takes_a_difference_or_a_margin(tmp_path, monkeypatch, capsys):
    def mistake(*options):
        monkeypatch.setattr("sys.argv", ["headsweep", "power", folder.name, "--output", str(tmp_path), *options])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, capsys.readouterr().err.strip()

    folder = sweep(tmp_path, heads=["seqpool", "ga"])
    assert mistake() == (2, "headsweep: expected --difference POINTS or --margin POINTS, e.g. --difference 0.5")
    both = mistake("--difference", "1", "--margin", "2")
    assert both == (2, "headsweep: --difference 1 --margin 2: expected one of the two")
    assert mistake("--margin", "0")[1].startswith("headsweep: --margin 0: expected percentage points")


@pytest.mark.slow
def test_a_study_that_tunes_needs_seeds_for_its_arms_alone(tmp_path):
    rates = {"1e-3": 0.0, "1e-2": 0.1}
    cells = [
        compose_run(f"head={head}", f"paths.output={tmp_path}", f"optimizer.lr={rate}")
        for head in ("seqpool", "ga")
        for rate in rates
    ]
    plan = make_plan([replace(cell, seed=seed) for cell in cells for seed in range(3)])
    freeze(plan, {run.fingerprint: {} for run in plan.runs})
    for planned in plan.runs:
        top1 = TOP1[planned.run.head.name][planned.run.seed]
        val = top1 + planned.run.optimizer.lr
        planned.folder.finish(RunResult("finished", {"test/top1": top1, "val/top1": val}, 1, 1))
    path = plan.folder / "plan.json"
    atomic_files.write_json(path, json.loads(path.read_text()) | {"design": {"tune": ["optimizer.lr"]}})
    lines = advise(SweepFolder(plan.folder), {}, AIM)[0].splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("head=")] == ["head=ga heads=1 optimizer.lr=0.01"]
