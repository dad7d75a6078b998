"""`headsweep reproduce` trains a run again with its own code, and reports in what the two differ."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch

from commands import TINY_RUN, train
from composing import compose_run
from factories import record_code
from headsweep.analysis.compare_runs import compare
from headsweep.analysis.reproduce import reproduce
from headsweep.config.overrides import all_overrides
from headsweep.errors import Interrupted, UserError
from headsweep.plan import git_state, uncommitted
from headsweep.plan.frozen import frozen_values
from headsweep.plan.plan import freeze, make_plan
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from test_cli import give

pytestmark = pytest.mark.slow

# Stands in for src/train.py: what it is given goes to a file, and its run is the original with CHANGE made to it.
TRAINER = """
import json, os, pathlib, shutil, subprocess, sys
root = str(pathlib.Path(__file__).parents[1])
given = dict(word.split("=", 1) for word in sys.argv[1:])
to = pathlib.Path(given["paths.output"], "runs", {name!r})
if not to.exists():
    shutil.copytree({original!r}, to)
    record, result = (json.loads((to / name).read_text()) for name in ("run.json", "result.json"))
    commit = subprocess.check_output(["git", "-C", root, "rev-parse", "HEAD"], text=True).strip()
    record["code"] = {{"commit": commit, "dirty": False}}
    result["metrics"]["test/top1"] += {change}
    result["environment"]["threads"] = int(os.environ["OMP_NUM_THREADS"])
    (to / "run.json").write_text(json.dumps(record))
    (to / "result.json").write_text(json.dumps(result))
(to / "given.json").write_text(json.dumps({{"words": given, "path": os.environ["PYTHONPATH"]}}))
"""


def git(root, *arguments) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def original(tmp_path) -> RunFolder:
    """A run that has ended, made by hand."""
    plan = make_plan([compose_run("head=ga", "heads=2", "head.gram_dim=32", f"paths.output={tmp_path / 'outputs'}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    (folder,) = plan.folders
    metrics = {"test/top1": 0.5, "test/top5": 0.75}
    for epoch in (1, 2):
        folder.metrics_log.append(Entry(epoch, 10 * epoch, {"train/loss": 1 / epoch, **metrics}))
    weights = {"head.weight": torch.tensor([1.0, float("nan")]), "scale": torch.tensor(2.0)}
    torch.save({"model": weights, "state_dict_ema": None}, folder.checkpoint)
    folder.finish(RunResult("finished", metrics, 2, 20, {}, {"device": "cpu", "threads": 3}))
    return folder


@pytest.fixture
def project(tmp_path, original, monkeypatch):
    """A checkout with two commits, the first of which trained the run; the second trains it otherwise."""
    root = tmp_path / "project"
    for name in ("src", "conf"):
        (root / name).mkdir(parents=True)
    git(tmp_path, "init", "-q", str(root))
    monkeypatch.setattr(git_state, "PROJECT_ROOT", root)
    monkeypatch.setattr("headsweep.analysis.reproduce.PROJECT_ROOT", root)
    commit(root, original, change=0.0)
    record_code(original, git_state.code_version())
    commit(root, original, change=0.25)
    return root


def commit(root, original, change):
    script = TRAINER.format(name=original.path.name, original=str(original.path), change=change)
    (root / "src" / "train.py").write_text(script)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a change")


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_other_code_is_refused_and_its_commit_trains_in_a_copy(original, project, tmp_path):
    before, here = bytes_of(original), (project / "src" / "train.py").read_text()
    with pytest.raises(
        UserError, match=r"was planned by commit \w{10}, which differs from the working tree; --code recorded"
    ):
        reproduce(original, tmp_path / "again", None)
    assert not (tmp_path / "again").exists()
    comparison = reproduce(original, tmp_path / "again", "recorded")
    assert comparison.is_exact and comparison.points == 0 and comparison.environment == ()
    given = json.loads((tmp_path / "again" / "runs" / original.path.name / "given.json").read_text())
    assert given["words"]["tracking.name"] == "'none'" and given["words"]["head"] == "ga"
    assert given["words"]["head.gram_dim"] == "32" and given["words"]["schedule.warmup"] == "'10 percent'"
    assert given["path"].endswith("/src") and str(project) not in given["path"]
    assert git(project, "worktree", "list").count("\n") == 0
    assert (project / "src" / "train.py").read_text() == here
    assert bytes_of(original) == before
    assert reproduce(original, tmp_path / "again", "recorded").is_exact  # it is only compared


PRECISIONS = [(None, (), "auto"), ("float32", (), "auto"), ("bfloat16", (), "bfloat16")]
PRECISIONS += [("float32", ("GPU-a",), "float32"), ("bfloat16", ("GPU-a",), "auto")]


def test_it_trains_in_the_precision_of_the_original_where_auto_would_be_another(original, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr("headsweep.analysis.reproduce._run", lambda words, _: commands.append(words))
    for was, gpus, _ in PRECISIONS:
        monkeypatch.setattr("headsweep.analysis.reproduce.visible_gpus", lambda gpus=gpus: gpus)
        if was:
            original.write_precision(was)
        with pytest.raises(ValueError, match="not enough values"):  # nothing was trained
            reproduce(original, tmp_path / "again", "current")
    found = [word for words in commands for word in words if word.startswith("precision=")]
    assert found == [f"precision={given}" for _, _, given in PRECISIONS]


def test_the_code_that_is_here_may_differ(original, project, tmp_path):
    comparison = reproduce(original, tmp_path / "again", "current")
    assert not comparison.is_exact
    assert comparison.points == 25
    assert [part.equal for part in comparison.parts] == [True, False, True]
    with pytest.raises(UserError, match="expected a reproduction by the same code"):
        reproduce(original, tmp_path / "again", "recorded")


def test_a_commit_that_changed_no_code_is_the_same_code(original, project, tmp_path):
    record_code(original, {"commit": git(project, "rev-parse", "HEAD"), "dirty": False})
    (project / "README.md").write_text("words")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "words")
    assert reproduce(original, tmp_path / "again", None).points == 25
    (project / "src" / "more.py").touch()
    with pytest.raises(UserError, match="which differs from the working tree"):
        reproduce(original, tmp_path / "again", None)


@pytest.mark.parametrize(
    ("code", "choice", "message"),
    [
        ({"commit": None, "dirty": False}, None, "the run recorded no commit, so its code is unknown"),
        ({"commit": None, "dirty": False}, "recorded", "--code recorded: the run recorded no commit"),
        ({"commit": "f" * 40, "dirty": False}, None, "commit ffffffffff is not in the repository"),
        (
            {"commit": "f" * 40, "dirty": False},
            "recorded",
            "commit ffffffffff cannot be checked out in a temporary folder",
        ),
        ({"commit": "f" * 40, "dirty": True}, None, "uncommitted changes to ffffffffff, which were not saved"),
    ],
)
def test_code_that_is_not_available_is_reported(original, project, tmp_path, code, choice, message):
    record_code(original, code)
    with pytest.raises(UserError, match=message):
        reproduce(original, tmp_path / "again", choice)
    assert not (tmp_path / "again").exists()


def test_stored_changes_are_applied_only_when_asked_for(original, project, tmp_path, monkeypatch):
    monkeypatch.setattr(uncommitted, "PROJECT_ROOT", project)
    script = project / "src" / "train.py"
    committed = script.read_text()
    script.write_text(TRAINER.format(name=original.path.name, original=str(original.path), change=0.0))
    record_code(original, uncommitted.with_changes(git_state.code_version(), original.output.path))
    script.write_text(committed)
    with pytest.raises(UserError, match=r"uncommitted changes to \w{10}, stored in .*\.diff; --code changed uses that"):
        reproduce(original, tmp_path / "again", None)
    assert reproduce(original, tmp_path / "again", "changed").is_exact
    assert not reproduce(original, tmp_path / "without", "recorded").is_exact


def test_only_a_new_folder_is_written_to(original, project, tmp_path):
    output = original.path.parents[1]
    with pytest.raises(UserError, match="expected a new folder, found that of the original"):
        reproduce(original, output, "current")
    with pytest.raises(UserError, match="expected a new or empty folder"):
        reproduce(original, project, "current")


def test_a_run_that_has_not_ended_is_not_reproduced(original, tmp_path):
    (original.path / "result.json").unlink()
    with pytest.raises(UserError, match="is unfinished: expected a finished run"):
        reproduce(original, tmp_path / "again", "current")


def test_a_training_that_fails_ends_with_its_exit_code(original, project, tmp_path):
    (project / "src" / "train.py").write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="3"):
        reproduce(original, tmp_path / "again", "current")


@pytest.mark.parametrize(("code", "raised"), [(143, SystemExit), (0, Interrupted)])
def test_a_stopped_training_alone_prints_how_to_go_on(original, project, tmp_path, code, raised):
    (project / "src" / "train.py").write_text(
        f"import os, signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)\n"
    )
    with pytest.raises(raised) as caught:
        reproduce(original, tmp_path / "again", "current")
    assert getattr(caught.value, "code", 0) == code


def test_only_a_file_of_the_models_is_chosen_by_the_name_of_a_model(original, tmp_path):
    """Another would be composed, with whatever it says to Hydra."""
    values = frozen_values(original)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "evil.yaml").write_text("# @package _global_\nhydra: {}\n")
    values.model.name = "../evil"
    assert not [word for word in all_overrides(values, tmp_path / "conf") if word.startswith("model=")]


def test_a_run_that_lacks_a_key_of_today_is_spelled_with_the_keys_that_it_has(original):
    """The code that planned it does not know the others."""
    text = original.config.read_text()
    original.config.write_text("".join(line for line in text.splitlines(True) if not line.startswith("decorrelation")))
    values = frozen_values(original)
    assert "decorrelation" not in values and values.head.gram_dim == 32


def test_what_lets_git_take_another_repository_is_not_handed_on(original, project, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert reproduce(original, tmp_path / "again", "recorded").is_exact


@pytest.fixture
def again(original, tmp_path):
    return RunFolder(shutil.copytree(original.path, tmp_path / "again"))


def words(original, again) -> list[str]:
    return [part.words for part in compare(original, again).parts]


def test_equal_runs_are_equal_even_in_their_nans(original, again):
    assert compare(original, again).is_exact
    assert words(original, again) == [
        "equal: 2 lines to epoch 2",
        "equal: finished, test/top1 50.00 %, test/top5 75.00 %",
        "equal: 2 tensors, byte for byte",
    ]


def test_the_largest_difference_is_named(original, again):
    again.metrics_log.rewind(10)
    again.metrics_log.append(Entry(2, 20, {"train/loss": 0.75, "test/top1": 0.5, "test/top5": 0.75}))
    torch.save(
        {"model": {"head.weight": torch.ones(2), "scale": torch.tensor(2.5)}, "state_dict_ema": None}, again.checkpoint
    )
    result = again.result()
    environment = {"device": "cpu", "threads": 4}
    again.finish(replace(result, metrics=result.metrics | {"test/top5": 0.76}, environment=environment))
    comparison = compare(original, again)
    assert words(original, again) == [
        "differs from epoch 2 on, most in train/loss (0.25); 1 of 2 lines",
        "differs most in test/top5: 0.76, by 0.01; test/top1 50.00 %, test/top5 76.00 %",
        "differ in 2 of 2 tensors, most in model.head.weight (nan)",
    ]
    assert comparison.points == pytest.approx(1.0)
    assert comparison.environment == ("threads 4, originally 3",)


def test_another_end_is_no_small_difference(original, again):
    again.finish(replace(again.result(), state="diverged", metrics={}, steps=7, note="the loss is nan"))
    assert compare(original, again).points == float("inf")
    assert (
        words(original, again)[1]
        == "differs: diverged after 7 steps the loss is nan, originally finished after 20 steps"
    )


def test_two_runs_without_accuracies_are_within_no_tolerance(original, again):
    """Both diverged, at different steps."""
    for steps, run in enumerate((original, again), 7):
        run.finish(replace(run.result(), state="diverged", metrics={"train/loss": float("nan")}, steps=steps))
    assert compare(original, again).points == float("inf")


def test_weights_that_are_gone_are_not_compared(original, again):
    original.checkpoint.unlink()
    comparison = compare(original, again)
    assert comparison.parts[2].equal is None and comparison.is_exact
    assert comparison.parts[2].words == f"not compared: no {original.checkpoint}"


def test_a_true_run_comes_again_bit_for_bit(warm, empty_store, tmp_path, capfd):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    tiny = ["duration='2 epochs'", *TINY_RUN, "ema_decay=0.9", "tracking.models=false"]
    answer = train("head=seqattn", *tiny, f"paths.output={tmp_path}")
    assert answer.returncode == 0, answer.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    database = (tmp_path / "mlflow.db").read_bytes()
    assert give("reproduce", folder.name, "--code", "current", "--output", tmp_path) == 0
    reported = capfd.readouterr().out
    assert "REPRODUCED bit for bit" in reported and "byte for byte" in reported
    assert (tmp_path / "mlflow.db").read_bytes() == database
    assert len(list((tmp_path / "runs").iterdir())) == 1 and len(list((tmp_path / "sweeps").iterdir())) == 1
    result = RunFolder(folder).result()
    RunFolder(folder).finish(
        replace(result, metrics=result.metrics | {"test/top1": result.metrics["test/top1"] + 0.01})
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "reproductions" / folder.name / "runs").rename(tmp_path / "other" / "runs")  # which is only compared
    again = ["reproduce", folder.name, "--code", "current", "--output", tmp_path, "--into", tmp_path / "other"]
    assert give(*again) == 1
    assert "NOT REPRODUCED: accuracies differ by up to 1 points, tolerance 0" in capfd.readouterr().out
