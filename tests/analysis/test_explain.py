"""`headsweep explain` leads from a cell of a table to its runs, and to the command that trains them again."""

import shlex
import shutil
from dataclasses import replace

import pytest

from composing import compose_run
from factories import record_code
from headsweep.analysis.explain import _checkout, explain
from headsweep.config.study import expansion
from headsweep.errors import UserError
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.plan import freeze, make_plan
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from overriding import compose_and_set

COST = {"parameters": 1234, "head_parameters": 34, "flops": 5678, "head_flops": 78}
TOP1 = (0.5, 0.75)
COMMIT = "0123456789" * 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep of two heads and two learning rates with two seeds; the last of them has not been trained."""
    output = tmp_path_factory.mktemp("outputs")
    cells = [
        compose_run(f"head={head}", lr, "duration='2 epochs'", f"paths.output={output}")
        for head in ("seqpool", "ga")
        for lr in ("optimizer.lr=1e-3", "optimizer.lr=5e-4")
    ]
    plan = make_plan([replace(cell, seed=seed) for cell in cells for seed in (0, 1)])
    freeze(plan, {run.fingerprint: COST for run in plan.runs})
    for folder in plan.folders[:-1]:
        metrics = {"test/top1": TOP1[folder.record().seed]}
        environment = {"device": "cpu (x86_64)", "threads": 2, "ranks": 1, "torch": "2.15", "gpu": None}
        folder.finish(RunResult("finished", metrics, 2, 10, {"train_seconds": 7.4}, environment))
    for folder in plan.folders:
        record_code(folder, {"commit": COMMIT, "dirty": False})
    return output


@pytest.fixture
def output(trained, tmp_path):
    """That sweep, in an outputs folder that was moved."""
    return shutil.copytree(trained, tmp_path / "moved")


@pytest.fixture(autouse=True)
def code_is_here_and_composed_once(monkeypatch):
    monkeypatch.setattr(expansion, "compose", compose_and_set)
    monkeypatch.setattr("headsweep.analysis.explain.is_here", lambda commit, folders=(): True)
    _checkout.cache_clear()


def commands(text) -> list[list[str]]:
    return [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("  python src/train.py")]


def runs_of(text) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line.startswith("run ")]


@pytest.mark.slow
def test_a_cell_lists_its_runs_and_the_command_that_trains_the_same_ones(output):
    text, _ = explain(["head=ga", "optimizer.lr=0.001"], None, output)
    assert text.startswith("head=ga heads=1 optimizer.lr=0.001  group ")
    assert "  test/top1   62.50 ± 158.83 %, n = 2  of 50.00, 75.00" in text
    assert "1,234 parameters (34 in the head), 5,678 FLOPs per image" in text
    assert f"code      {COMMIT}" in text
    assert "machine   cpu (x86_64), 2 threads, 1 ranks, torch 2.15" in text
    assert f"headsweep reproduce {runs_of(text)[0]}" in text
    for at, name in enumerate(runs_of(text)):
        folder = RunFolder(output / "runs" / name)
        folder.finish(replace(folder.result(), metrics={"test/top1": 0.5 + at * 1e-6}))
    text, _ = explain(["head=ga", "optimizer.lr=0.001"], None, output)
    assert "  test/top1   50.000 ± 0.001 %, n = 2  of 50.000, 50.000" in text
    (command,) = commands(text)
    assert command[0] == "-m" and command[-1] == "seed=0,1"
    again = [compose_run(*command[1:-1], f"seed={seed}") for seed in (0, 1)]
    resolved = [planned.run for planned in make_plan(again).runs]
    assert list(map(fingerprint, resolved)) == runs_of(text)


@pytest.mark.slow
def test_several_cells_and_a_run_that_was_not_trained(output):
    text, _ = explain(["head=ga"], "latest", output)
    assert [len(runs_of(part)) for part in text.split("Command that trains what is missing")] == [2, 2, 0]
    assert "seed 1, new\n" in text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fingerprint", "group", "name", "folder"])
def test_a_run_or_a_group_is_a_cell(kind, output, tmp_path):
    folder = RunFolder(next((output / "runs").iterdir()))
    record = folder.record()
    if kind == "folder":  # wherever it is
        text, _ = explain([str(folder.path)], None, tmp_path)
    else:
        word = getattr(record, kind)
        text, _ = explain([word if kind == "name" else word[:8]], None, output)
    assert f"group {record.group}" in text
    assert record.fingerprint in runs_of(text) and len(runs_of(text)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["head=cait"], "head=cait: no such cell among 4; head is seqpool, ga"),
        (["zzz"], "zzz: no run or cell has this fingerprint"),
        ([""], "the name of a run is empty"),
        (["head"], "head: no run or cell has this fingerprint or name"),
        (["heads<2"], "'heads<2': expected KEY=VALUE"),
    ],
)
def test_an_unknown_cell_is_refused(words, message, output):
    with pytest.raises(UserError, match=message):
        explain(words, None, output)


@pytest.mark.slow
def test_other_code_is_checked_out_first_and_other_defaults_are_spelled_out(output, monkeypatch):
    monkeypatch.setattr("headsweep.analysis.explain.is_here", lambda commit, folders=(): folders == ["conf"])
    text, _ = explain(["head=ga", "optimizer.lr=0.001"], None, output)
    assert f"  git checkout {COMMIT}\n  python src/train.py -m head=ga" in text
    assert "weight_decay" not in text
    assert f"headsweep reproduce {runs_of(text)[0]} --code recorded" in text
    _checkout.cache_clear()
    monkeypatch.setattr("headsweep.analysis.explain.is_here", lambda commit, folders=(): False)
    (command,) = commands(explain(["head=ga", "optimizer.lr=0.001"], None, output)[0])
    assert "optimizer.weight_decay=0.06" in command and command[-1] == "seed=0,1"
    assert fingerprint(compose_run(*command[1:-1], "seed=0")) in runs_of(text)


@pytest.mark.slow
def test_uncommitted_changes_are_reported(output):
    folder = RunFolder(next((output / "runs").iterdir()))
    record_code(folder, {"commit": COMMIT, "dirty": True})
    text, _ = explain([folder.path.name], None, output)
    assert "with uncommitted changes, which were not saved" in text
    assert "(its working tree was dirty: not exactly this code)" in text
    assert len(commands(text)) == 2  # the other seed is not in doubt


@pytest.mark.slow
def test_a_run_of_another_version_is_reported(output, monkeypatch):
    monkeypatch.setattr("headsweep.analysis.explain.fingerprint", lambda run: "another")
    text, _ = explain(["head=ga", "optimizer.lr=0.001"], None, output)
    assert "(this version of headsweep computes another fingerprint: it would be a new run)" in text
    for path in (output / "runs").glob("*/config.yaml"):
        path.write_text(path.read_text().replace("batch_size:", "batch_sizes:"))
    text, _ = explain(["head=ga", "optimizer.lr=0.001"], None, output)
    assert "batch_sizes: unknown key" in text and "another version of headsweep" in text
    assert commands(text) == []
