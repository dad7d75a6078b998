"""A bundle has what a reader needs to make the same table elsewhere, and nothing private."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from commands import TINY_RUN, give
from composing import compose_run
from headsweep.analysis.bundle import bundle
from headsweep.analysis.bundle.anonymous import Anonymizer
from headsweep.config import PROJECT_ROOT
from headsweep.errors import UserError
from headsweep.models import model_of
from headsweep.plan.plan import freeze, make_plan
from headsweep.report.html import document
from headsweep.run.load_model import trained
from headsweep.run.train_run import train_folder
from headsweep.tracking import atomic_files
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from undrawn import draw as draw_nothing

pytestmark = pytest.mark.slow

ENVIRONMENT = {"device": "cpu (x86_64)", "threads": 2, "torch": "2.15.0", "packages": "timm 1.0.31"}
COST = {"parameters": 1000, "head_parameters": 100, "flops": 2000, "head_flops": 200}
STORED = "http://anna:hunter2-stored@tracking.example"
PLANTED = {  # what must never be in an archive -> where it is planted
    "hunter2-stored": "a stored address",
    "hunter2-command": "the command of the sweep",
    "hunter2-environment": "a variable of the environment, and in a traceback",
    "sk-live-9f8e7d6c5b4a": "an assignment in the changes that were not committed",
    "anna-the-user": "the home of another user in a traceback",
}


def finish(run: RunFolder, top1: float) -> None:
    for epoch in (1, 2):
        run.metrics_log.append(Entry(epoch, 4 * epoch, {"train/loss": 1 / epoch, "val/top1": top1}, {"time": 1e9}))
    run.write_test_correct(np.arange(100) < 100 * top1)
    run.checkpoint.write_bytes(b"weights" * 1000)
    clock = {"train_seconds": 60.0, "images_per_second": 100.0}
    run.finish(RunResult("finished", {"test/top1": top1, "test/top5": 1.0, "val/top1": top1}, 2, 8, clock, ENVIRONMENT))


def plan_sweep(output: Path, monkeypatch, *more: str) -> list[RunFolder]:
    words = [*TINY_RUN, "optimizer.lr=0.001", f"paths.output={output}", f"tracking.uri={STORED}", *more]
    heads = [f"head={head}" for head in ("seqpool", "gap")]
    plan = make_plan([compose_run(*words, head, f"seed={seed}") for head in heads for seed in range(3)])
    monkeypatch.setattr("sys.argv", [str(PROJECT_ROOT / "src" / "train.py"), f"paths.output={output}"])
    freeze(plan, {planned.fingerprint: COST for planned in plan.runs})
    return plan.folders


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Draw no figure: that the same runs make the same ones, `test_document.py` shows."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(document, "draw", draw_nothing)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """An output folder with a sweep of six runs that have finished."""
    output = tmp_path_factory.mktemp("study") / "outputs"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        for at, run in enumerate(plan_sweep(output, monkeypatch)):
            finish(run, 0.5 + 0.04 * at)
    return output


@pytest.fixture(scope="module")
def archive(finished, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "bundle.tar.gz"
    assert give("bundle", "latest", "--output", finished, "--write", path) == 0
    return path


@pytest.fixture
def unpacked(archive, tmp_path) -> Path:
    """The bundle elsewhere, under another name."""
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path)
    (root,) = tmp_path.iterdir()
    return root.rename(tmp_path / "another name")


@pytest.fixture
def without_report(monkeypatch):
    """Leave out the report."""
    monkeypatch.setattr(bundle.document, "write", lambda *_: 0)


def printed(capsys, *words: object) -> str:
    capsys.readouterr()
    assert give(*words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("layout", ["markdown", "csv", "latex", "json", "terminal"])
def test_the_table_is_the_same_elsewhere(layout, finished, unpacked, capsys):
    words = ["table", "latest", "--format", layout, "--output"]
    assert printed(capsys, *words, unpacked) == printed(capsys, *words, finished)


def test_its_own_table_agrees_with_its_runs(unpacked, capsys):
    (sweep,) = (unpacked / "sweeps").iterdir()
    assert "1 table agrees" in printed(capsys, "table", "--verify", sweep / "table.tex", "--output", unpacked)
    assert {path.name for path in sweep.iterdir()} == {"plan.json", "table.md", "table.csv", "table.tex", "report"}
    assert printed(capsys, "explain", "head=gap", "--output", unpacked).count("finished") == 3


@pytest.mark.parametrize("weights", ["last", "best"])
def test_a_run_without_its_weights_is_not_exported(weights, unpacked):
    run = RunFolder(next((unpacked / "runs").iterdir()))
    with pytest.raises(UserError, match=r"expected checkpoint.pt of a finished run, found none; `headsweep bundle --w"):
        trained(run, best=weights == "best")


def test_the_report_is_the_same_elsewhere(unpacked, capsys):
    page = next((unpacked / "sweeps").glob("*/report/report.html"))
    before = page.read_bytes()
    page.unlink()
    printed(capsys, "report", "--output", unpacked)
    assert page.read_bytes() == before
    assert not (unpacked / "mlflow.db").exists()


def test_the_checklists_have_the_numbers_of_the_sweep(unpacked):
    text = (unpacked / "checklists.md").read_text()
    for fact in (
        "6 runs of 2 configurations; seeds 0-2, 3 finished for each configuration.",
        "10 % of the training images, drawn by the seed, are for validation; 100 test images.",
        "An epoch of training images is 4 optimizer steps of 32 images.",
        "Training time: 6.0 min in total over 6 runs, median 60.0 s per run",
        "Hardware: cpu (x86_64), 2 threads (6 runs).",
        "torch 2.15.0, timm 1.0.31 (6 runs).",
        "Trained parameters: 1,000.",
        "All runs have finished.",
    ):
        assert fact in text
    assert text.count("\n\nTo be answered by the authors.\n") == 5


def test_the_same_runs_are_the_same_bytes_wherever_they_lie(finished, tmp_path, without_report):
    moved = shutil.copytree(finished, tmp_path / "moved to another place")
    for path in moved.rglob("*"):
        os.utime(path, (1e9, 1e9))
    for name, output in (("a", finished), ("b", moved)):
        assert give("bundle", "--output", output, "--write", tmp_path / name) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_secret_and_no_place_travels(tmp_path, monkeypatch, without_report):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SOME_API_KEY", "hunter2-environment")
    output = tmp_path / "private folder" / "outputs"
    runs = plan_sweep(output, monkeypatch)
    for run in runs[:-1]:
        finish(run, 0.5)
    runs[-1].fail("token hunter2-environment refused\n  /home/anna-the-user/x.py\nValueError: " + str(output))
    plan = next(OutputFolder(output).sweeps.glob("*/plan.json"))
    command = f"python {output}/train.py --uri=http://anna:hunter2-command@host password=hunter2-command"
    plan.write_text(plan.read_text().replace('"commands": [', f'"commands": [\n"{command}",'))
    plant_changes(runs[0])
    assert give("bundle", "--output", output, "--write", tmp_path / "b", "--partial") == 0
    content = gzip.decompress((tmp_path / "b").read_bytes())
    for secret, where in PLANTED.items():
        assert secret.encode() not in content, where
    for place in (str(output), str(tmp_path), str(Path.home()), str(PROJECT_ROOT), "tracking.example"):
        assert place.encode() not in content
    assert b"--uri=http://host" in content and b"anna" not in content
    assert b"ValueError: outputs" in content and b"api_key = ***" in content


def plant_changes(run: RunFolder) -> None:
    OutputFolder(run.output.path).patch("abcd" * 4).parent.mkdir(exist_ok=True)
    run.output.patch("abcd" * 4).write_text('+api_key = "sk-live-9f8e7d6c5b4a"\n+class_token = "first"\n')
    path = run.path / "run.json"
    record = run.record()
    record.code.update(commit="a" * 40, dirty=True, changes="abcd" * 4)
    atomic_files.write_json(path, vars(record))


def test_what_is_no_secret_stays():
    clean = Anonymizer(
        [Path("/data/outputs")], {"SSH_AUTH_SOCK": "/run/agent", "A_KEY": "short", "KEYBOARD_LAYOUT": "tokens=196"}
    )
    for text in ("class_token: bool = True", "tokens=196", "token = tokens[:, 0]", "key=head.name /run/agent short"):
        assert clean.text(text) == text
    assert clean.text("token=abc123def password: 'four' /data/outputs/runs") == "token=*** password: *** outputs/runs"


@pytest.fixture
def begun(tmp_path, monkeypatch) -> list[RunFolder]:
    """A sweep of which one run has finished, one has failed, one was interrupted, and three have not started."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    runs = plan_sweep(tmp_path / "outputs", monkeypatch)
    finish(runs[0], 0.5)
    runs[1].fail("out of memory")
    runs[2].checkpoint.write_bytes(b"weights")
    return runs


def test_a_sweep_with_unfinished_runs_is_refused(begun, tmp_path, capsys):
    assert give("bundle", "--output", tmp_path / "outputs", "--write", tmp_path / "b") == 2
    error = capsys.readouterr().err
    assert "5 of 6 runs of" in error and f"{begun[1].path.name}: failed, {begun[2].path.name}: unfinished" in error
    assert "and 2 more" in error and "--partial" in error and error.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_a_partial_bundle_has_the_states_of_the_runs(begun, tmp_path, capsys, without_report):
    shutil.rmtree(begun[5].path)
    output = tmp_path / "outputs"
    assert give("bundle", "--output", output, "--write", tmp_path / "b", "--partial") == 0
    with tarfile.open(tmp_path / "b") as opened:
        opened.extractall(tmp_path / "elsewhere")
    (again,) = (tmp_path / "elsewhere").iterdir()
    words = ["table", "latest", "--mark", "--format", "markdown", "--output"]
    assert printed(capsys, *words, again) == printed(capsys, *words, output)


def test_weights_are_added_on_request_and_their_size_is_printed_first(finished, tmp_path, capsys, without_report):
    out = printed(capsys, "bundle", "--output", finished, "--write", tmp_path / "without")
    assert "; weights: 41 KiB, not included; --weights adds them\n" in out
    assert "weights: 41 KiB, included\n" in printed(
        capsys, "bundle", "--output", finished, "--write", tmp_path / "with", "--weights"
    )
    with tarfile.open(tmp_path / "with") as opened:
        held = [member.size for member in opened if member.name.endswith("checkpoint.pt")]
    assert held == [7000] * 6


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_what_was_there(error, finished, tmp_path, capsys, monkeypatch, without_report):
    def fail(*_: object, **__: object) -> None:
        raise error

    path = tmp_path / "bundle.tar.gz"
    path.write_text("precious")
    assert give("bundle", "--output", finished, "--write", path) == 2
    assert "exists; give another --write, or --force to replace it" in capsys.readouterr().err
    monkeypatch.setattr(tarfile.TarFile, "addfile", fail)
    assert give("bundle", "--output", finished, "--write", path, "--force") in (2, 130)
    assert path.read_text() == "precious" and [it.name for it in tmp_path.iterdir()] == [path.name]
    mistake = f"{path} cannot be written: No space left on device" if isinstance(error, OSError) else "interrupted"
    assert capsys.readouterr().err.endswith(f"headsweep: {mistake}\n")


def test_a_run_is_reproduced_from_a_bundle_and_the_weights_that_it_started_from(tmp_path, capfd, without_report, warm):
    weights = tmp_path / "pretrained.pt"
    torch.save({"model": model_of(compose_run(*TINY_RUN, "seed=7")).state_dict()}, weights)
    keys = ["backbone=frozen", f"model.checkpoint={weights}", "augmentation=none", "duration='1 epochs'"]
    plan = make_plan([compose_run(*TINY_RUN, *keys, f"paths.output={tmp_path / 'outputs'}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    train_folder(plan.folders[0], lambda progress: None)
    assert give("bundle", "--output", tmp_path / "outputs", "--write", tmp_path / "b") == 0
    with tarfile.open(tmp_path / "b") as opened:
        opened.extractall(tmp_path / "elsewhere")
    (again,) = (tmp_path / "elsewhere").iterdir()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"| `checkpoints/pretrained.pt` | {digest} |" in (again / "README.md").read_text()
    command = ["reproduce", plan.folders[0].path.name, "--output", again, "--code", "current"]
    place = again / "checkpoints" / weights.name
    other = f"the weights that the run started from, found a file with SHA-256 {hashlib.sha256(b'other').hexdigest()}"
    for expected in ("a readable file, found: No such file or directory", other):
        assert give(*command) == 2
        advice = f"copy the file with SHA-256 {digest} there"
        assert capfd.readouterr().err == f"headsweep: model.checkpoint={place}: expected {expected}; {advice}\n"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"other")
    weights.rename(place)
    out = printed(capfd, *command)
    assert "REPRODUCED bit for bit" in out and "weights     not compared" in out
