"""A run is exported for the hub, ONNX Runtime and torch.export, and computes there what it computes here."""

import json
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard

from commands import TINY_RUN, give
from composing import compose_run
from headsweep.models import model_of
from headsweep.models.configured import architecture
from headsweep.models.frozen import Probe
from headsweep.plan.plan import freeze, make_plan
from headsweep.run import programs
from headsweep.run.load_model import trained
from headsweep.run.predictor import predictor
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from headsweep.training.checkpoint import TrainingState

pytestmark = pytest.mark.slow

CELL = [*TINY_RUN, "head=sg", "heads=2"]
TOP1 = {0: 0.5, 1: 0.6, 2: 0.7}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[RunFolder]:
    """Three seeds that have finished, with initial weights, and a fourth that has not."""
    output = tmp_path_factory.mktemp("outputs")
    plan = make_plan([compose_run(*CELL, f"seed={seed}", f"paths.output={output}") for seed in range(4)])
    freeze(plan, {planned.fingerprint: {} for planned in plan.runs})
    for planned in plan.runs:
        model = model_of(planned.run)
        state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1), average=None)
        state.snapshot().save(planned.folder.checkpoint)
    for planned, top1 in zip(plan.runs, TOP1.values(), strict=False):
        metrics = {"test/top1": top1, "test/top5": 1.0, "best/top1": top1 / 2}
        planned.folder.finish(RunResult("finished", metrics, 3, 12, {}, {"device": "cpu"}))
    return plan.folders


def export(run: RunFolder, layout: str, output: Path, *more: str) -> int:
    return give("export", run.path, "--format", layout, "--output", output, *more)


def test_timm_loads_the_same_model_from_the_folder_for_the_hub(runs, tmp_path, capsys):
    folder = tmp_path / "hub" / "model"
    assert export(runs[0], "hf", folder) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: last weights of sg2-cct_2_3x2-digits-seed0")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(model(images), trained(runs[0]).eval()(images))
    data = timm.data.resolve_model_data_config(model)
    assert (data["input_size"], data["mean"], data["std"]) == ((1, 16, 16), [0.3053], [0.3431])


def test_a_frozen_backbone_is_exported_with_its_head(tmp_path):
    plan = make_plan([compose_run(*CELL, "backbone=random", "augmentation=none", f"paths.output={tmp_path}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    probe, (run,) = Probe(model_of(plan.runs[0].run)), plan.folders
    TrainingState(probe, torch.optim.SGD(probe.parameters(), lr=0.1), average=None).snapshot().save(run.checkpoint)
    run.finish(RunResult("finished", {"test/top1": 0.5}, 3, 12))
    assert export(run, "hf", tmp_path / "hub") == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(model(images), trained(run).eval()(images))
    assert "The backbone was not trained (backbone=random)" in (tmp_path / "hub" / "README.md").read_text()


def test_the_card_has_mean_and_interval_over_the_seeds_of_the_cell(runs, tmp_path):
    assert export(runs[1], "hf", tmp_path / "hub", "--license", "apache-2.0") == 0
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "timm")
    top1, top5 = card.data.eval_results
    assert (top1.metric_value, top1.dataset_type, top1.dataset_split) == (60.0, "digits", "test")
    low, high = top1.metric_args["interval"]  # of 50, 60, 70: 4.303 x 10 / sqrt(3)
    assert (low, high) == (35.16, 84.84) and top1.metric_args["seeds"] == 3
    assert top5.metric_value == 100.0 and "interval" not in top5.metric_args
    assert "| Top-1 accuracy | 60.00 ± 24.84 | 3 | 60.00 |" in card.text
    assert "3 finished of 4 planned seeds" in card.text and str(runs[1].path.parent) not in card.content


def test_the_same_run_is_the_same_folder_twice(runs, tmp_path):
    for name in ("a", "b"):
        assert export(runs[0], "hf", tmp_path / name) == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_model_of_timm_is_in_the_folder_with_its_backbone(tmp_path):
    small = ["dataset.image_size=64"]
    run = compose_run("model=timm", "model.name=resnet10t", *small, "head=gap", f"paths.output={tmp_path}")
    model = timm.create_model("headsweep", **json.loads(json.dumps(architecture(run))))
    assert model.state_dict().keys() == model_of(run).state_dict().keys()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "model=None: expected a configuration with family, one of compact, timm"),
        ({"model": {"family": "compact", "no_such": 1}, "head": {"name": "gap"}}, "model: Key 'no_such' not in"),
    ],
)
def test_a_wrong_configuration_of_the_folder_is_named(keywords, message):
    with pytest.raises(Exception, match=message):
        timm.create_model("headsweep", **keywords)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pt2", "onnx"])
def test_a_program_computes_the_logits_for_any_number_of_images(layout, runs, tmp_path, capsys):
    output = tmp_path / f"model.{layout}"
    assert export(runs[0], layout, output) == 0
    assert "largest difference of its logits: " in capsys.readouterr().out
    content, pixels = output.read_bytes(), 255 * torch.rand(5, 1, 16, 16)
    run = programs._FORMATS[layout][1](content)
    expected = predictor(runs[0], best=False).module(pixels)
    torch.testing.assert_close(run(pixels), expected, atol=1e-4, rtol=0)
    assert str(Path(__file__).parents[2]).encode() not in content, "paths of this machine"


def test_a_program_that_computes_something_else_is_not_written(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(
        programs._FORMATS, "pt2", (lambda *_: b"", lambda _: lambda images: torch.zeros(len(images), 10))
    )
    assert export(runs[0], "pt2", tmp_path / "model.pt2") == 2
    error = capsys.readouterr().err
    assert "expected the logits of the model within 0.0001 of the largest, found a difference of" in error
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_one_line(runs, tmp_path, capsys, monkeypatch):
    def fail(*_: object) -> bytes:
        try:
            raise ValueError("no such operator\nin ONNX")
        except ValueError as error:
            raise RuntimeError("a pass failed") from error

    monkeypatch.setitem(programs._FORMATS, "onnx", (fail, lambda _: None))
    assert export(runs[0], "onnx", tmp_path / "model.onnx") == 2
    assert capsys.readouterr().err == "headsweep: --format onnx: the model cannot be exported: no such operator\n"
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    assert export(runs[0], "onnx", tmp_path / "model.onnx") == 2
    assert "needs onnx, onnxscript, onnxruntime: pip install 'headsweep[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["hf", "onnx", "pt2"])
def test_a_run_that_has_not_finished_is_refused(layout, runs, tmp_path, capsys):
    assert export(runs[3], layout, tmp_path / "out") == 2
    assert f"--format {layout} needs a finished run, found one that is unfinished" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_only_an_earlier_export_is_replaced(runs, tmp_path, capsys):
    folder = tmp_path / "hub"
    assert export(runs[0], "hf", folder) == 0
    assert export(runs[1], "hf", folder) == 2
    assert f"{folder} exists; give another --output, or --force" in capsys.readouterr().err
    assert export(runs[1], "hf", folder, "--force") == 0
    assert json.loads((folder / "config.json").read_text())["headsweep"]["seed"] == 1
    (folder / "thesis.tex").write_text("precious")
    assert export(runs[0], "hf", folder, "--force") == 2
    assert f"{folder} holds other files (e.g. thesis.tex)" in capsys.readouterr().err
    assert export(runs[0], "headsweep", folder, "--force") == 2
    assert "is a folder; give a file as --output" in capsys.readouterr().err


def test_force_replaces_no_model_of_another_origin(runs, tmp_path, capsys):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "README.md").write_text("precious")
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    assert export(runs[0], "hf", folder, "--force") == 2
    assert f"{folder} is not a model that headsweep exported; give another --output" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == "precious"


@pytest.mark.parametrize("layout", ["headsweep", "hf", "onnx"])
def test_an_output_folder_of_runs_is_no_target(layout, runs, capsys):
    output = runs[0].output.path
    before = sorted(output.rglob("*"))
    assert export(runs[0], layout, output, "--force") == 2
    error = capsys.readouterr().err
    assert f"--output {output}: expected the file or folder to write, found an output folder of runs" in error
    assert f"--runs {output / 'runs'}" in error and error.count("\n") == 1
    assert sorted(output.rglob("*")) == before


@pytest.mark.parametrize("moment", ["model.safetensors", "README.md"])
def test_a_full_disk_leaves_what_was_there(moment, runs, tmp_path, capsys, monkeypatch):
    assert export(runs[0], "hf", tmp_path / "hub") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()}
    kinds = {"model.safetensors": "write_bytes", "README.md": "write_text"}
    real = getattr(Path, kinds[moment])

    def full(path: Path, *content: object, **options: object) -> object:
        if path.name == moment:
            raise OSError(28, "No space left on device")
        return real(path, *content, **options)

    monkeypatch.setattr(Path, kinds[moment], full)
    assert export(runs[1], "hf", tmp_path / "hub", "--force") == 2
    assert capsys.readouterr().err.endswith("hub cannot be written: No space left on device\n")
    assert {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "cct_2_3x2_32"], "--format hf needs a run, whose record has the input and the results"),
        (["--weights", "best"], "expected best weights, found none"),
    ],
)
def test_a_mistake_is_one_line(more, message, runs, tmp_path, capsys):
    assert export(runs[0], "hf", tmp_path / "out", *more) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
