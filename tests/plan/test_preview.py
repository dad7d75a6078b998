"""`headsweep plan` says what the same command would train, and starts nothing."""

import json
import os
from dataclasses import replace

import pytest

import commands
from commands import light, train
from composing import compose_run
from headsweep.errors import UserError
from headsweep.plan.code_of_runs import code_by_run, code_change, current_code, record_code
from headsweep.plan.fingerprint import group
from headsweep.plan.lookup import refusal
from headsweep.plan.origin import Origin
from headsweep.plan.plan import freeze, make_plan
from headsweep.plan.preview import Preview, Row, preview
from headsweep.tracking.run_record import RunResult

COST = {"parameters": 3, "head_parameters": 1, "flops": 9, "head_flops": 2}


def grid(output, *more, heads=("seqpool", "ga"), seeds=(0, 1)):
    return [
        compose_run(f"head={head}", f"seed={seed}", f"paths.output={output}", *more) for head in heads for seed in seeds
    ]


@pytest.fixture
def plan(tmp_path):
    """Four runs, the first of which has ended: 10 epochs of 20 steps, half a second each."""
    plan = make_plan(grid(tmp_path, "duration='10 epochs'"))
    freeze(plan, {run.fingerprint: COST for run in plan.runs[:1]})
    clock = {"train_seconds": 100.0, "peak_memory_gib": 0.5}
    plan.folders[0].finish(RunResult("finished", {}, epochs=10, steps=200, clock=clock))
    return plan


@pytest.mark.slow
def test_a_run_costs_what_other_seeds_of_it_have_cost(plan, tmp_path):
    rows = preview([run.run for run in plan.runs], [], check=None).rows
    assert [row.fingerprint for row in rows] == [run.fingerprint for run in plan.runs]
    assert [row.state for row in rows] == ["done", "new", "new", "new"]
    assert [row.cost for row in rows] == [COST, COST, None, None]
    assert [row.seconds for row in rows] == [0.0, 100.0, None, None]
    assert [row.memory_gib for row in rows] == [0.5, 0.5, None, None]
    on_gpus = preview([run.run for run in plan.runs], [], check=None, on_gpus=True).rows
    assert [row.memory_gib for row in on_gpus] == [None] * 4
    longer = preview(grid(tmp_path, "duration='30 epochs'", "optimizer.lr=1e-2"), [], check=None).rows
    assert [row.seconds for row in longer] == [300.0, 300.0, None, None]
    larger = preview(grid(tmp_path, "model.width=256"), [], check=None).rows
    assert {row.seconds for row in larger} == {None}


def test_costs_of_new_cells_are_asked_for_once_and_what_cannot_be_built_is_not_valid(plan):
    asked = []

    def check(runs):
        asked.extend(runs)
        return [UserError("too many heads") if run.head.name == "ga" else {**COST, "flops": 10} for run in runs]

    found = preview([run.run for run in plan.runs], [("cell", "mistake")], check)
    assert len({group(run) for run in asked}) == len(asked) == 2
    assert [name for name, _ in found.bad] == ["cell", *("ga1-cct_2_3x2-digits-seed0", "ga1-cct_2_3x2-digits-seed1")]
    assert [row.cost["flops"] for row in found.rows] == [9, 10]


def test_runs_without_data_are_not_valid_and_the_others_are_planned(tmp_path):
    runs = grid(tmp_path)
    runs[1] = replace(runs[1], dataset=replace(runs[1].dataset, num_classes=7))
    found = preview(runs, [], check=None)
    assert len(found.rows) == 3
    ((name, mistake),) = found.bad
    assert "seed1" in name and mistake.startswith("dataset.num_classes=7")


def test_the_eta_fills_the_slots_and_counts_what_is_unknown():
    times = [60.0, 60.0, 60.0, None, 0.0]
    states = ["new", "partial", "failed", "new", "done"]
    rows = [Row("", "", state, None, seconds, None, Origin()) for state, seconds in zip(states, times, strict=True)]
    assert Preview("", rows, []).eta(1) == (180.0, 1)
    assert Preview("", rows, []).eta(2) == (120.0, 1)
    assert Preview("", rows, []).eta(8) == (60.0, 1)


def test_a_refusal_names_ten_cells_and_counts_the_others():
    text = str(refusal([(f"heads={-n}", f"mistake {n}") for n in range(12)], cells=20))
    assert text.startswith("12 of 20 cells are not valid, nothing was started\n  heads=0: mistake 0\n")
    assert text.count("\n") == 11 and text.endswith("\n  and 2 more")
    assert str(refusal([("a", "wrong"), ("b", "wrong")], cells=2)) == "wrong"


def test_runs_begun_with_other_code_are_said_in_one_line(plan, monkeypatch):
    commit = "headsweep.plan.code_of_runs.code_version"
    monkeypatch.setattr(commit, lambda: {"commit": "a" * 40, "dirty": False})
    freeze(plan, {run.fingerprint: COST for run in plan.runs[1:3]})
    plan.folders[1].fail("no luck")
    plan.folders[2].checkpoint.touch()
    assert code_change(plan.folders[1:3]) is None
    monkeypatch.setattr(commit, lambda: {"commit": "b" * 40, "dirty": False})
    assert code_change(plan.folders[1:3]) == (
        "2 of 2 runs were started with other code than bbbbbbb: 2 with code aaaaaaa; they resume with the current code"
    )


def test_the_code_that_trains_a_run_is_recorded_whatever_planned_it(plan, monkeypatch):
    """The command was stopped, and the code changed, before one run started and another one ended."""
    commit = "headsweep.plan.code_of_runs.code_version"
    monkeypatch.setattr(commit, lambda: {"commit": "a" * 40, "dirty": False})
    freeze(plan, {run.fingerprint: COST for run in plan.runs[1:4]})
    plan.folders[2].fail("no luck")  # before its first checkpoint, so it starts again
    plan.folders[3].checkpoint.touch()
    first = [folder.record() for folder in plan.folders[1:4]]
    record_code(code_by_run(plan.folders[1:4], current_code(plan.output)))
    assert [folder.record() for folder in plan.folders[1:4]] == first
    for letter, then in (("b", "bbbbbbbbbb"), ("c", "bbbbbbbbbb, cccccccccc"), ("c", "bbbbbbbbbb, cccccccccc")):
        monkeypatch.setattr(commit, lambda letter=letter: {"commit": letter * 40, "dirty": False})
        record_code(code_by_run(plan.folders[1:4], current_code(plan.output)))
        names = [folder.record().code_name for folder in plan.folders[1:4]]
        assert names == [letter * 10, letter * 10, f"aaaaaaaaaa, then {then}"]
    monkeypatch.setattr(commit, lambda: {"commit": "d" * 40, "dirty": False})
    monkeypatch.setattr("headsweep.plan.code_of_runs.packages_used", lambda config: {"lab-heads": "1.1 bbbb"})
    with plan.folders[1].lock():  # another process trains it
        record_code(code_by_run(plan.folders[1:4], current_code(plan.output)))
    assert plan.folders[1].record().code_name == "cccccccccc"
    assert plan.folders[3].record().code_name.endswith(", cccccccccc, dddddddddd lab-heads 1.1 bbbb")


def test_a_run_that_its_first_code_continues_after_another_is_not_announced(plan, monkeypatch):
    def use(digest):
        code = {"commit": None, "dirty": False, "version": "1.0", "digest": digest}
        monkeypatch.setattr("headsweep.plan.code_of_runs.code_version", lambda: code)

    use("aaaa")
    freeze(plan, {plan.runs[1].fingerprint: COST})
    plan.folders[1].checkpoint.touch()
    use("bbbb")
    record_code(code_by_run(plan.folders[1:2], current_code(plan.output)))
    assert "1 with code headsweep 1.0 (aaaa); they" in code_change(plan.folders[1:2])
    use("aaaa")
    assert code_change(plan.folders[1:2]) is None


def test_runs_begun_with_another_version_of_a_package_are_announced(plan, monkeypatch):
    version = "headsweep.plan.code_of_runs.packages_used"
    monkeypatch.setattr(version, lambda config: {"lab-heads": "1.0 aaaa"})
    freeze(plan, {run.fingerprint: COST for run in plan.runs[1:3]})
    plan.folders[1].fail("no luck")
    plan.folders[2].checkpoint.touch()
    assert code_change(plan.folders[1:3]) is None
    for now, shown in (({"lab-heads": "1.1 bbbb"}, "1.1 bbbb"), ({}, "not installed")):
        monkeypatch.setattr(version, lambda config, now=now: now)
        assert code_change(plan.folders[1:3]) == (
            f"started with another version of a package: 2 runs with lab-heads 1.0 aaaa, now {shown}; they resume with "
            "the current one"
        )


def headsweep(*arguments, **environment):
    return light("-m", "headsweep.cli", *arguments, **environment)


@pytest.fixture
def no_torch(tmp_path):
    """A folder of modules that end the process that imports them, before PYTHONPATH."""
    for heavy in ("torch", "mlflow", "timm", "pandas"):
        (tmp_path / f"{heavy}.py").write_text("raise SystemExit('imported at the door')")
    return os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])


@pytest.mark.slow
def test_the_listing_is_one_plain_line_a_run_writes_nothing_and_imports_no_torch(tmp_path, no_torch):
    words = ["head=seqpool,ga", "heads=1,2", "seeds=2", f"paths.output={tmp_path / 'outputs'}"]
    words += ["hydra.launcher.exclude=['head=ga heads<2']"]
    answer = headsweep("plan", "--list", *words, PYTHONPATH=no_torch)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0] == "2 of 8 cells left out (hydra.launcher.exclude)"
    assert [line.split()[1:] for line in lines[1:-1]] == [
        [f"{head}-cct_2_3x2-digits-seed{seed}", "new", "?", "?", "?", "?"]
        for head in ("seqpool1", "seqpool2", "ga2")
        for seed in (0, 1)
    ]
    assert lines[-1].startswith("6 runs in digits-cct_2_3x2-") and "6 to train" in lines[-1]
    assert not (tmp_path / "outputs").exists()
    assert headsweep("plan", "--list", "-m", *words, PYTHONPATH=no_torch).stdout == answer.stdout


@pytest.mark.slow
def test_every_bad_cell_is_listed_and_the_exit_code_says_so(tmp_path, no_torch):
    words = ["head=seqpool,none_such", "heads=0,2", f"paths.output={tmp_path / 'outputs'}"]
    answer = headsweep("plan", "--list", "--json", *words, PYTHONPATH=no_torch)
    assert answer.returncode == 2, answer.stderr
    listed = json.loads(answer.stdout)
    assert len(listed["rows"]) == 1
    assert [name for name, _ in listed["bad"]] == [
        "head=seqpool heads=0",
        "head=none_such heads=0",
        "head=none_such heads=2",
    ]


@pytest.mark.slow
def test_one_bad_cell_stops_the_sweep_and_all_are_named(tmp_path):
    answer = train("-m", "heads=1,0,-1", f"paths.output={tmp_path / 'outputs'}")
    assert answer.returncode == 2
    assert answer.stderr == (
        "headsweep: 2 of 3 cells are not valid, nothing was started\n"
        "  heads=0: heads=0: expected an integer >= 1\n"
        "  heads=-1: heads=-1: expected an integer >= 1\n"
    )
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_costs_of_new_cells_are_counted(tmp_path):
    answer = commands.headsweep("plan", "--json", "heads=1,2", f"paths.output={tmp_path}")
    assert answer.returncode == 0, answer.stderr
    one, two = (row["cost"] for row in json.loads(answer.stdout)["rows"])
    assert 0 < one["head_parameters"] < two["head_parameters"] < two["parameters"]
    assert not list(tmp_path.iterdir())
