"""`headsweep status`, `logs`, `retry` and `cancel` as a user gives them, beside and after a true sweep."""

import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from commands import TINY, fresh, give, headsweep, start
from composing import compose_run
from factories import run_folders
from headsweep.errors import UserError
from headsweep.launch import retry
from headsweep.plan.plan import freeze, make_plan
from headsweep.status.render import show
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunState

FOUND = "found a selection of cells; "
GOLDEN = Path(__file__).parents[1] / "golden" / "output"


@pytest.fixture
def failed(tmp_path) -> RunFolder:
    """A run that has failed, made by hand, in a sweep of its own."""
    folder = RunFolder(tmp_path / "runs" / "abcdef012345")
    config = {"duration": "2 epochs", "batch_size": 5}
    folder.create(RunRecord("abcdef012345", "g", "gap1-digits-seed0", "digits-1", 0, config, {}, {}, {}), "seed: 0\n")
    folder.fail("Traceback (most recent call last):\nValueError: no")
    folder.log.write_text("a warning\n")
    (tmp_path / "sweeps" / "digits-1").mkdir(parents=True)
    (tmp_path / "sweeps" / "digits-1" / "plan.json").write_text('{"runs": ["abcdef012345"]}')
    return folder


@pytest.mark.slow
def test_looking_is_light(failed, tmp_path):
    """A module that ends the process stands in for what is heavy."""
    for heavy in ("torch", "mlflow", "timm", "pandas", "hydra", "omegaconf"):
        (tmp_path / f"{heavy}.py").write_text("raise SystemExit('imported at the door')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for arguments in (["status"], ["status", "latest"], ["logs", "abc"], ["cancel"]):
        answer = fresh("-m", "headsweep.cli", *arguments, "--output", str(tmp_path), PYTHONPATH=path)
        assert answer.returncode == 0, answer.stdout + answer.stderr


def test_an_empty_folder_prints_how_to_start(tmp_path):
    answer = headsweep("status", "--output", tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == (
        f"no sweep in {tmp_path} yet; start one with `python src/train.py -m head=seqpool,ga heads=1,4`\n"
    )


def test_the_log_is_followed_by_the_failure_unless_it_contains_it(failed, tmp_path):
    answer = headsweep("logs", "abc", "--output", tmp_path)
    assert answer.stdout == "a warning\nTraceback (most recent call last):\nValueError: no\n"
    assert "abcdef012345  failed, epoch 0/2" in answer.stderr
    failed.log.write_text("more of the traceback\nValueError: no\n")
    assert headsweep("logs", "abc", "-f", "--output", tmp_path).stdout == "more of the traceback\nValueError: no\n"


def test_names_in_a_copied_folder_cannot_act_on_the_terminal(failed, tmp_path, capsys):
    evil = "\x1b]0;title\x07\x1b[2J\u009b3Jname"
    record = json.loads((failed.path / "run.json").read_text())
    (failed.path / "run.json").write_text(json.dumps(record | {"name": evil}))
    failed.log.write_bytes(f"{evil}\r\n\x1b[31mred\x1b[0m größer ".encode() + b"\xff\n")
    failed.fail(f"Traceback\nValueError: {evil}")
    for arguments in (["status"], ["status", "latest"], ["logs", "abc"], ["logs", "nothing"], ["cancel", "latest"]):
        give(*arguments, "--output", tmp_path)
        said = capsys.readouterr()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said.out + said.err), arguments
        if arguments == ["status", "latest"]:
            assert r"\x1b]0;title\x07\x1b[2J\x9b3Jname" in said.out and said.out.count("\n") == 5
        if arguments[1:] == ["abc"]:
            assert "red größer \ufffd\n" in said.out


def test_a_run_whose_configuration_was_changed_is_damaged(tmp_path):
    output = Path(shutil.copytree(GOLDEN, tmp_path / "output"))
    config = output / "runs" / "010b2d79f82e" / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 32", "batch_size: 64"))
    answer = headsweep("status", "latest", "--output", output)
    assert "6 runs: 3 finished, 1 partial, 1 new, 1 damaged" in answer.stdout
    assert f"{config}, expected the configuration of fingerprint 010b2d79f82e" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "cifar"], "cifar: no such sweep; known: digits-1"),
        (["status", "--watch"], "--watch: expected a terminal as the output"),
        (["logs", "zzz"], "zzz: no run of that fingerprint or name"),
        (["retry", "zzz"], "zzz: no run of that fingerprint or name"),
        *(
            ([*command, "head=ga"], f"head=ga: expected the name of a sweep, the beginning of it, or latest, {FOUND}")
            for command in (["status"], ["watch"], ["power"], ["bundle"], ["status", "--efficiency"])
        ),
        *(
            ([command, "heads<2"], f"heads<2: expected the fingerprint, name or folder of a run, {FOUND}")
            for command in ("logs", "reproduce", "inspect")
        ),
        *(
            ([command, "head=ga"], f"head=ga: expected a sweep or an MLflow filter, {FOUND}")
            for command in ("table", "report")
        ),
        *(([command, "heads<2"], "'heads<2': expected KEY=VALUE") for command in ("cancel", "retry")),
        (["cancel", "cifar"], "cifar: no such sweep; known: digits-1"),
        *(
            (["cancel", f"--wait={wait}"], f"--wait={found}: expected a finite number of seconds >= 0")
            for wait, found in (("inf", "inf"), ("1e400", "inf"), ("nan", "nan"), ("-1", "-1"))
        ),
    ],
)
def test_a_mistake_is_one_line(arguments, message, failed, tmp_path, capfd):
    assert give(*arguments, "--output", tmp_path) == 2
    shown = capfd.readouterr()
    assert shown.out == "" and shown.err.startswith(f"headsweep: {message}") and shown.err.count("\n") == 1


@pytest.mark.slow
def test_what_is_running_or_cannot_be_read_is_not_retried(failed, tmp_path):
    with failed.lock():
        answer = headsweep("retry", "abc", "--output", tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith("headsweep: gap1-digits-seed0 (abcdef012345) is being trained; wait for it, or")
    with launching(tmp_path / "sweeps" / "digits-1"):
        answer = headsweep("retry", "abc", "--output", tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"headsweep: digits-1 is being trained by process {os.getpid()} on ")
    (failed.path / "run.json").write_text('{"fingerprint": ')
    answer = headsweep("retry", "--output", tmp_path)
    assert answer.returncode == 2 and "run.json, expected JSON" in answer.stderr and answer.stderr.count("\n") == 1
    assert failed.failure() is not None


def test_a_run_that_would_get_another_fingerprint_now_is_not_retried(tmp_path):
    plan = make_plan([compose_run(f"paths.output={tmp_path}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    (folder,) = plan.folders
    folder.fail("ValueError: no")
    folder.config.write_text(folder.config.read_text().replace("batch_size: 64", "batch_size: 32"))
    with pytest.raises(UserError, match=r"damaged: .*config.yaml, expected the configuration of fingerprint"):
        retry.train_again([folder], tmp_path, None, None)
    assert folder.failure() is not None


def test_a_retry_has_the_timeout_of_the_launcher(tmp_path, monkeypatch):
    plan = make_plan([compose_run(f"paths.output={tmp_path}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    defaults, given = replace(retry.local_defaults(), timeout=7), []
    monkeypatch.setattr(retry, "local_defaults", lambda: defaults)
    monkeypatch.setattr(retry, "run_sweep", lambda runs, launcher: given.append(launcher.settings))
    retry.train_again(plan.folders, tmp_path, 2, None)
    assert given == [replace(defaults, slots=2)]


@pytest.mark.slow
def test_a_sweep_is_cancelled_while_its_cells_are_checked(tmp_path):
    """The check waits for torch to be imported: it lasts for seconds."""
    process = start("-m", "heads=1,2", *TINY, "tracking=none", f"paths.output={tmp_path}")
    while not list(tmp_path.glob("sweeps/*/launchers/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    assert headsweep("cancel", "--output", tmp_path).stdout.endswith(" has stopped\n")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert stderr.startswith("headsweep: interrupted; ") and stderr.count("\n") == 1, stderr
    assert not list(tmp_path.glob("sweeps/*/plan.json")) and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_sweep_is_watched_cancelled_and_retried(tmp_path):
    """The sweep is cancelled early in the first of its two runs, its folder moved, and all of it retried."""
    output, moved = tmp_path / "outputs", tmp_path / "moved"
    job = ["-m", "heads=1,2", "duration='8 epochs'", *TINY, "tracking=none"]
    process = start(*job, "hydra.launcher.slots=1", f"paths.output={output}")
    while not any(path.stat().st_size for path in output.glob("runs/*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    looked = show("latest", output)
    cancelled = headsweep("cancel", "--output", output)
    assert cancelled.stdout.endswith(" has stopped\n")
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert "2 runs: 1 running, 1 new" in looked and f"process {process.pid} on " in looked
    assert {folder.state() for folder in run_folders(output)} <= {RunState.partial, RunState.new, RunState.finished}
    assert headsweep("cancel", "--output", output).stdout.startswith(
        "nothing to cancel: no process or job trains a sweep in "
    )

    output.rename(moved)
    (known,) = (moved / "sweeps").iterdir()
    before = {folder.path.name for folder in run_folders(moved)}
    unfinished = next(folder for folder in run_folders(moved) if folder.result() is None)
    unfinished.fail("ValueError: as of a mistake that has been mended")
    answer = headsweep("retry", known.name[:12], "--slots", 2, "--threads", 1, "--output", moved)
    assert answer.returncode == 0, answer.stderr
    assert "tried again" not in answer.stderr  # the failure is forgotten
    assert {folder.path.name for folder in run_folders(moved)} == before
    assert {folder.state() for folder in run_folders(moved)} == {RunState.finished}
    assert headsweep("retry", "seed=0", "--output", moved).stdout.endswith(", all finished: nothing to retry\n")
    assert list((moved / "sweeps").iterdir()) == [known], "and none of the chosen cells"
    assert not output.exists()
