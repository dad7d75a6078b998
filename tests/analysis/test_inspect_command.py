"""`headsweep inspect`: true numbers of a true run, pictures for any head, one line for a mistake."""

import json
import shutil
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from PIL import Image

import factories
from commands import TINY_RUN, fresh, give
from composing import compose_run
from headsweep.models import model_of
from headsweep.run.train_run import train_folder
from headsweep.tracking.inspection import read_inspection
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.checkpoint import TrainingState

pytestmark = pytest.mark.usefixtures("shapes_unchecked")  # they are the subject of tests/heads and tests/models

SHORT = [*TINY_RUN, "tracking=none", "duration='2 epochs'"]


inspect = partial(give, "inspect")


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take a second each: where they do not matter they are empty."""
    for draw in ("draw_attention", "draw_diversity"):
        monkeypatch.setattr(f"headsweep.analysis.inspect.{draw}", lambda *arguments: arguments[-1].write(b"a picture"))


def planned(output, *overrides: str) -> RunFolder:
    return factories.planned(output, *SHORT, *overrides)


def begun(output, *overrides: str) -> RunFolder:
    """A run whose checkpoint holds the weights of its first step."""
    folder = planned(output, *overrides)
    model = model_of(compose_run(*SHORT, *overrides))
    TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1), average=None).snapshot().save(folder.checkpoint)
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """An outputs folder with one run that is over, of three heads."""
    place = tmp_path_factory.mktemp("outputs")
    train_folder(planned(place, "head=seqattn", "heads=3"), lambda progress: None)
    return place


@pytest.fixture
def run(output) -> RunFolder:
    (path,) = (output / "runs").iterdir()
    return RunFolder(path)


@pytest.mark.slow
def test_accuracies_are_those_that_the_run_was_evaluated_with(output, run, capsys):
    assert inspect(run.path.name[:6], "--output", output, "--samples", 1) == 0
    found, said = read_inspection(run.path), run.result().metrics
    assert found.metrics["top1"] == said["test/top1"]
    assert found.heads == [said[f"test/per_head/top1_{head}"] for head in (1, 2, 3)]
    assert (found.images, found.question.split) == (128, "test")
    printed = capsys.readouterr().out
    assert f"{100 * said['test/top1']:.2f}" in printed and "128 test images; ensemble" in printed
    assert all(str(path) in printed for path in found.files)
    for picture in (found.attention, found.diversity):
        with Image.open(picture) as opened:
            assert opened.format == "PNG"


def test_the_numbers_that_are_kept_have_names(output, run):
    inspect(run.path, "--samples", 1)
    content = json.loads((run.path / "inspection" / "inspection.json").read_text())
    assert set(content["meaning"]) >= set(content["metrics"]) | set(content["matrices"])
    assert all(len(matrix) == len(matrix[0]) == 3 for matrix in content["matrices"].values())


@pytest.mark.slow
def test_the_same_weights_give_the_same_bytes(output, run):
    def contents():
        inspect(run.path, "--again", "--samples", 1)
        return {path.name: path.read_bytes() for path in (run.path / "inspection").iterdir()}

    first = contents()
    assert contents() == first and len(first) == 3


@pytest.mark.slow
def test_given_again_it_answers_from_the_file_without_torch(output, run, tmp_path, capsys, undrawn):
    inspect(run.path, "--again")
    capsys.readouterr()
    for heavy in ("torch", "mlflow", "timm", "pandas", "matplotlib"):
        (tmp_path / f"{heavy}.py").write_text("raise SystemExit('imported for an answer that is there')")
    command = ["-m", "headsweep.cli", "inspect", run.path.name, "--output", str(output)]
    answer = fresh(*command, PYTHONPATH=str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("these weights were inspected before; --again recomputes\n")
    assert "128 test images; ensemble" in answer.stdout


@pytest.mark.slow
def test_another_question_is_looked_at_anew_and_the_first_answer_is_remembered(output, run, undrawn):
    inspect(run.path, "--again")
    before = read_inspection(run.path)
    inspect(run.path, "--split", "val", "--images", "40", "--samples", "2")
    after = read_inspection(run.path)
    assert (after.images, after.question.split, after.question.samples) == (40, "val", 2)
    assert after.metrics != before.metrics and after.earlier == [*before.earlier, before.metrics]


def test_the_inspection_is_mirrored_from_where_the_run_is_now(run, tmp_path, monkeypatch, undrawn):
    heard = []

    class Told:
        notify = staticmethod(heard.append)

    monkeypatch.setattr(
        "headsweep.analysis.inspect.tracker_of", lambda run: heard.append(run.paths.output) or nullcontext(Told)
    )
    moved = shutil.copytree(run.path, tmp_path / "moved" / "runs" / run.path.name)
    inspect(moved, "--again")
    assert heard[0] == str(tmp_path / "moved") and heard[1].path == moved


@pytest.mark.slow
# No patch tokens, wider pooled vectors, running statistics, a fixed number of tokens, weights of powers.
@pytest.mark.parametrize("name", ["cls", "cls_gap", "ga", "clip", "gem"])
def test_any_head_can_be_looked_into(name, tmp_path, capsys, undrawn):
    folder = begun(tmp_path, f"head={name}", "heads=2")
    assert inspect(folder.path, "--images", 20) == 0
    found = read_inspection(folder.path)
    assert set(found.matrices) == {"disagreement", "kl", "cka"} and found.diversity is not None
    says_so = "no attention.png: the head reads no patch tokens" in capsys.readouterr().out
    assert says_so == (found.attention is None) == (name == "cls")


@pytest.mark.slow
def test_one_head_is_looked_into_and_compared_with_nothing(tmp_path, capsys, undrawn):
    folder = begun(tmp_path, "head=seqpool", "heads=1")
    assert inspect(folder.path) == 0
    assert "128 test images; one head: nothing to compare" in capsys.readouterr().out
    found = read_inspection(folder.path)
    assert found.diversity is None and found.attention is not None and "kl" not in found.metrics


def mistake(capsys, *arguments) -> str:
    assert inspect(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("headsweep: ") and error.count("\n") == 1
    return error


@pytest.mark.slow
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, capsys):
    folder = planned(tmp_path, "dataset.validation=0")
    assert "expected checkpoint.pt, found none" in mistake(capsys, folder.path)
    assert "expected the folder of a run, found no config.yaml" in mistake(capsys, tmp_path)
    assert "nowhere: no run of that fingerprint or name" in mistake(capsys, "nowhere", "--output", tmp_path)
    folder = begun(tmp_path, "dataset.validation=0")
    assert "--split val: expected validation images, found none" in mistake(capsys, folder.path, "--split", "val")
    assert "expected a visible CUDA device, found 0" in mistake(capsys, folder.path, "--device", "cuda:99") or (
        torch.cuda.is_available()
    )
    assert not (folder.path / "inspection").exists()


@pytest.mark.slow
def test_weights_that_have_diverged_are_one_line(tmp_path, capsys):
    folder = begun(tmp_path)
    kept = torch.load(folder.checkpoint, weights_only=True)
    kept["model"]["head.classifier.bias"].fill_(float("nan"))
    torch.save(kept, folder.checkpoint)
    assert "expected finite logits, found others: the run has diverged" in mistake(capsys, folder.path)
    assert not (folder.path / "inspection").exists()
