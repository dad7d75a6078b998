"""The `headsweep` command: help without torch, one line for a mistake, and exports that others can load."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import timm
import torch

from commands import give, light
from composing import compose_run
from headsweep.cli import commands
from headsweep.errors import UserError
from headsweep.models import build_model
from headsweep.plan.plan import freeze, make_plan
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.checkpoint import TrainingState

TINY = ["model.width=32", "model.depth=1", "model.attention_heads=1", "debug=quick", "model.block=pre_norm"]


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run with a checkpoint."""
    plan = make_plan([compose_run(*TINY, "head=seqattn", "heads=3", f"paths.output={tmp_path / 'outputs'}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    config, folder = plan.runs[0].run, plan.folders[0]
    model = build_model(
        config.model,
        config.head,
        heads=3,
        num_classes=config.dataset.num_classes,
        image_size=config.dataset.image_size,
        channels=config.dataset.channels,
        seed=0,
    )
    TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1), average=None).snapshot().save(folder.checkpoint)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], ["export", "--help"], ["report", "--help"], [], ["export", "x"], ["none_such"]]
)
def test_help_and_mistakes_need_no_torch(arguments, tmp_path):
    """A module that ends the process stands in for torch and mlflow."""
    for heavy in ("torch", "mlflow", "timm", "pandas", "matplotlib"):
        (tmp_path / f"{heavy}.py").write_text("raise SystemExit('imported too early')")
    answer = light("-m", "headsweep.cli", *arguments, PYTHONPATH=str(tmp_path))
    assert "imported too early" not in answer.stdout + answer.stderr
    assert answer.returncode == (0 if "--help" in arguments else 2)
    assert answer.stderr.count("\n") == (0 if "--help" in arguments else 1)


def all_commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield from all_commands(command) if isinstance(command, click.Group) else [command]


OF_RUNS = [
    it for it in all_commands(commands) if any("paths.output" in str(option.to_info_dict()) for option in it.params)
]


@pytest.mark.parametrize("command", OF_RUNS, ids=[it.name for it in OF_RUNS])
def test_commands_on_runs_take_the_output_folder_as_the_command_of_a_sweep_does(command: click.Command, tmp_path: Path):
    context = command.make_context(command.name, [f"paths.output={tmp_path}", "x"], resilient_parsing=True)
    assert context.params["output"] == tmp_path
    assert not any("paths.output" in str(value) for value in context.params.values()), "it is no name or condition"


@pytest.mark.parametrize("command", OF_RUNS, ids=[it.name for it in OF_RUNS])
def test_an_output_folder_that_does_not_exist_is_refused_by_all(command: click.Command, tmp_path: Path):
    place = tmp_path / "none"
    with pytest.raises(UserError, match=f"^--output {place}: expected the output folder of runs .paths.output., found"):
        command.make_context(command.name, ["--output", str(place), "x"])
    assert not place.exists()


OF_PATHS = [
    (command, option)
    for command in all_commands(commands)
    for option in command.params
    if isinstance(option, click.Option) and isinstance(option.type, click.Path)
]


@pytest.mark.parametrize(("command", "option"), OF_PATHS, ids=[f"{it.name}{option.opts[0]}" for it, option in OF_PATHS])
def test_an_empty_path_is_refused_as_the_working_directory_is_not_meant(command: click.Command, option: click.Option):
    with pytest.raises(click.BadParameter, match=r"^expected a path, found nothing$"):
        command.make_context(command.name, [f"{option.opts[0]}=", "x"])


@pytest.mark.parametrize(
    "words", [["plan"], ["train"], ["match", "params", "--budget", "1M"]], ids=lambda words: words[0]
)
def test_commands_that_take_keys_and_values_name_the_key_of_the_output_folder(words: list[str], capsys):
    for option in (["--output", "x"], ["--output=x"]):
        assert give(*words, *option, "head=ga") == 2
        expected = "expected paths.output=FOLDER, as this command takes words KEY=VALUE"
        assert capsys.readouterr().err == f"headsweep: {option[0]}: {expected}\n"


def test_an_output_folder_that_no_run_is_in_is_not_ignored(tmp_path: Path, capsys):
    assert len(OF_RUNS) > 14
    assert give("retry", "head=ga", f"paths.output={tmp_path}") == 2
    assert capsys.readouterr().err.startswith(f"headsweep: no sweep in {tmp_path} (see --output); ")
    assert give("status", "--", "paths.output=x") == 2, "a name"


@pytest.mark.slow
def test_a_run_is_exported_in_headsweep_s_layout_by_folder_and_by_the_beginning_of_its_fingerprint(run, tmp_path):
    kept = torch.load(run.checkpoint, weights_only=True)["model"]
    by_name = ["--runs", run.path.parent]
    for source, more in ((run.path, []), (run.path.name[:8], by_name)):
        assert give("export", source, "--format", "headsweep", "--output", tmp_path / "ours.pth", "--force", *more) == 0
        written = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
        assert written.keys() == kept.keys()
        assert all(torch.equal(written[name], kept[name]) for name in kept)


def test_the_best_weights_of_a_run_are_exported_where_it_has_some(run, tmp_path, capsys):
    order = ["export", run.path, "--format", "headsweep", "--output", tmp_path / "best.pth", "--weights", "best"]
    assert give(*order) == 2
    assert "expected best weights, found none: there were no validation images" in capsys.readouterr().err
    best = torch.load(run.checkpoint, weights_only=True)["model"]
    best["head.classifier.weight"] += 1
    torch.save({"state_dict": best, "epoch": 3}, run.best)
    assert give(*order) == 0
    written = torch.load(tmp_path / "best.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(written[name], best[name]) for name in best)


def test_a_run_is_exported_under_the_published_names(run, tmp_path):
    assert give("export", run.path, "--format", "upstream", "--output", tmp_path / "theirs.pth") == 0
    written = torch.load(tmp_path / "theirs.pth", weights_only=True)["state_dict"]
    assert written["classifier.seq_attn_head.gram_attention.2.attn.q.weight"].shape == (8, 32)
    kept = torch.load(run.checkpoint, weights_only=True)["model"]
    assert torch.equal(written["classifier.seq_attn_head.final_fc.1.weight"], kept["head.classifier.weight"][1])


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["headsweep", "upstream"])
def test_a_file_is_exported_with_the_classes_it_has(layout, tmp_path):
    model = timm.create_model("seqattn2_cct_7_3x1_32", num_classes=7)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    output = tmp_path / "exported.pth"
    more = ["--format", layout, "--output", output, "--model", "seqattn2_cct_7_3x1_32"]
    assert give("export", tmp_path / "model.pth", *more) == 0
    again = timm.create_model("seqattn2_cct_7_3x1_32", num_classes=7, checkpoint_path=str(output))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_an_existing_file_is_replaced_only_by_force(run, tmp_path, capsys):
    output: Path = tmp_path / "weights.pth"
    output.write_text("precious")
    order = ["export", run.path, "--format", "headsweep", "--output", output]
    assert give(*order) == 2
    assert output.read_text() == "precious"
    assert capsys.readouterr().err == f"headsweep: {output} exists; give another --output, or --force to replace it\n"
    assert give(*order, "--force") == 0
    assert torch.load(output, weights_only=True)


MISTAKES = [
    (["export", "nowhere", "--runs", "RUNS"], "/runs (see --runs); start one with"),
    (["export", "RUNS"], "expected the folder of a run, found no config.yaml there"),
    (["export", "WEIGHTS"], "is a file: name its model with --model"),
    (
        ["export", "WEIGHTS", "--model", "cct_7_3x1_32", "--weights", "best"],
        "is a checkpoint file; give a run, or omit",
    ),
    (["export", "WEIGHTS", "--model", "resnet18"], "--model resnet18: unknown; expected a model of headsweep"),
    (["export", "TEXT", "--model", "cct_2_3x2_32"], "expected a file of weights, found another or a damaged one"),
    (["export", "WEIGHTS", "--model", "ga1_cct_7_3x1_32"], "the file lacks head.query"),
    (["export", "GAP", "--model", "gap1_cct_7_3x1_32", "--format", "upstream"], "no published code has heads=1 of gap"),
    (
        ["export", "WEIGHTS", "--format", "tflite"],
        "'tflite' is not one of 'headsweep', 'upstream', 'hf', 'onnx', 'pt2'. (headsweep export --help)",
    ),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "text.pth").write_text("text")
    (folder / "runs").mkdir()
    for name in ("seqattn1", "gap1"):
        torch.save(timm.create_model(f"{name}_cct_7_3x1_32").state_dict(), folder / f"{name}.pth")
    names = {"RUNS": "runs", "WEIGHTS": "seqattn1.pth", "GAP": "gap1.pth", "TEXT": "text.pth"}
    return {word: str(folder / name) for word, name in names.items()}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_is_one_line_and_writes_nothing(arguments, message, places, tmp_path, capsys):
    given = [places.get(word, word) for word in arguments]
    layout = [] if "--format" in given else ["--format", "headsweep"]
    assert give(*given, *layout, "--output", tmp_path / "out" / "weights.pth") == 2
    error = capsys.readouterr().err
    assert error.startswith("headsweep: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_one_folder_of_runs_is_expected(tmp_path: Path, capsys):
    assert give("table", "--output", tmp_path, "paths.output=elsewhere") == 2
    assert "paths.output=elsewhere: expected one folder of runs, found several" in capsys.readouterr().err
    assert give("table", "paths.output=") == 2
    assert capsys.readouterr().err == "headsweep: paths.output=: expected a folder, found nothing\n"
