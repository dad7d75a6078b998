"""Runs whose backbone is frozen, or fine-tuned from a file with another head."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import factories
from comparing import differences
from composing import compose_run
from factories import weights
from headsweep.data.datasets import open_splits
from headsweep.data.loader import EvalLoader
from headsweep.errors import ConfigError, UserError
from headsweep.models import model_of
from headsweep.models.frozen import FrozenBackbone, Probe, weights_digest
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.frozen import frozen
from headsweep.run.load_model import trained as trained_model
from headsweep.run.predictor import predictor
from headsweep.run.train_run import preflight, train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.evaluation import evaluate
from headsweep.training.optimization import build_optimizer, build_schedule
from headsweep.training.progress import Stopped
from headsweep.training.ranks import Ranks
from ranks import trained as trained_on

TINY_MODEL = ["model.width=32", "model.depth=1", "model.attention_heads=1"]
LIVE = ["backbone=frozen", "tokens.cache=off"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Weights of a backbone, beside a head that no test trains."""
    path = tmp_path_factory.mktemp("weights") / "pretrained.pt"
    run = compose_run(*TINY_MODEL, "head=cait", "heads=3", "seed=7")
    torch.save({"model": model_of(run).state_dict()}, path)
    return path


def planned(tmp_path, file: Path, *overrides: str) -> RunFolder:
    keys = [
        "backbone=frozen",
        "tokens.cache=off",
        f"model.checkpoint={file}",
        "duration='2 epochs'",
        "schedule.warmup='0 epochs'",
    ]
    return factories.planned(tmp_path, *keys, *overrides)


def trained(tmp_path, file: Path, *overrides: str) -> RunFolder:
    folder = planned(tmp_path, file, *overrides)
    train_folder(folder, lambda progress: None)
    return folder


@pytest.mark.slow
def test_the_checkpoint_is_of_the_head_and_the_trained_model_is_whole(tmp_path, file):
    folder = trained(tmp_path, file, "head=ga", "heads=2", "ema_decay=0.5", "clip_norm=1.0")
    content = torch.load(folder.checkpoint, weights_only=True)
    names = {name for part in ("model", "state_dict_ema") for name in content[part]}
    assert names and all(name.startswith("head.") for name in names)
    assert all(name.startswith("head.") for name in torch.load(folder.best, weights_only=True)["state_dict"])
    parameters = sum(len(group["params"]) for group in content["optimizer"]["param_groups"])
    model = trained_model(folder)
    assert parameters == len(list(model.head.parameters()))
    of_file = torch.load(file, weights_only=True)["model"]
    assert all(torch.equal(value, of_file[f"backbone.{name}"]) for name, value in model.backbone.state_dict().items())
    assert on_the_test_set(folder) == folder.result().metrics["test/top1"]
    assert predictor(folder).module.classifier.backbone.width == 32


def on_the_test_set(folder: RunFolder) -> float:
    run = frozen(folder)
    source = open_splits(run.dataset, run.seed, run.loader, run.debug).test
    loader = EvalLoader(source, run.dataset, 32, CPU, 0)
    return evaluate(trained_model(folder), loader, nullcontext(), Ranks()).metrics["top1"]


@pytest.mark.slow
def test_a_run_that_is_interrupted_twice_ends_with_the_same_bits(tmp_path, file):
    overrides = ["head=seqattn", "heads=2", "ema_decay=0.9"]
    stopped = planned(tmp_path / "stopped", file, *overrides)
    for steps in (1, 5):
        asked = iter([False] * steps)
        with pytest.raises(Stopped):
            train_folder(stopped, lambda progress: None, lambda asked=asked: next(asked, True))
    train_folder(stopped, lambda progress: None)
    assert differences(stopped, trained(tmp_path / "whole", file, *overrides)) == []


@pytest.mark.slow
def test_two_ranks_and_micro_batches_train_what_one_process_trains(tmp_path, file):
    overrides = ["head=ga", "heads=2", "optimizer=sgd", "optimizer.lr=0.05", "augmentation=paper", "accumulation=2"]
    two, one = planned(tmp_path / "two", file, *overrides), trained(tmp_path / "one", file, *overrides)
    assert trained_on(two, 2) == [0, 0]
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-3, atol=1e-5)


def test_an_image_has_the_same_tokens_in_every_batch(file):
    backbone = frozen_backbone(file)
    images = torch.randn(37, 1, 16, 16)
    tokens, order = backbone(images), torch.randperm(37)
    assert not tokens.requires_grad and not tokens.is_inference()
    assert torch.equal(backbone(images[order]), tokens[order])
    assert torch.equal(torch.cat([backbone(part) for part in images.split(5)]), tokens)


def test_a_changed_backbone_is_detected(file):
    backbone = frozen_backbone(file)
    backbone.check_unchanged()
    next(backbone._backbone.parameters()).add_(1e-3)
    with pytest.raises(UserError, match="expected the weights of the frozen backbone unchanged, found others"):
        backbone.check_unchanged()


def frozen_backbone(file: Path) -> FrozenBackbone:
    run = compose_run(*TINY_MODEL, "dataset.image_size=16", *LIVE, f"model.checkpoint={file}")
    run.dataset.num_classes = 10
    return FrozenBackbone(model_of(run).backbone, CPU, nullcontext)


def test_running_statistics_of_a_frozen_backbone_stay(tmp_path):
    keys = ["backbone=random", "augmentation=none", "model=timm", "model.name=test_byobnet", "dataset.image_size=64"]
    run = compose_run(*keys)
    run.dataset.num_classes = 10
    backbone = model_of(run).backbone
    assert any(name.endswith("running_mean") for name, _ in backbone.named_buffers())
    before = weights_digest(backbone)
    FrozenBackbone(backbone, CPU, nullcontext)(torch.randn(4, 1, 64, 64))
    assert weights_digest(backbone) == before


def test_the_head_starts_from_the_seed_however_the_backbone_is_trained(file):
    starts = []
    for mode in (["backbone=train"], ["backbone=random"], *([f"backbone={how}"] for how in ("frozen", "finetune"))):
        given = [f"model.checkpoint={file}"] if mode[0] in ("backbone=frozen", "backbone=finetune") else []
        run = compose_run(*TINY_MODEL, *mode, *given, "head=seqattn", "heads=2", "augmentation=none")
        run.dataset.num_classes = 10
        starts.append(weights_digest(model_of(run).head))
    assert len(set(starts)) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=frozen"], "backbone=frozen: expected weights of the backbone, found none; .* or backbone=random"),
        (["backbone=finetune"], "backbone=finetune: expected weights of the backbone, found none"),
        (["backbone=random", "model.checkpoint=x.pt"], "model.checkpoint=.*x.pt: expected null with backbone=random"),
        (["optimizer.backbone_lr_scale=0.1"], "optimizer.backbone_lr_scale=0.1: expected 1 with backbone=train"),
        (["optimizer.backbone_lr_scale=0"], "optimizer.backbone_lr_scale=0.0: expected a number > 0"),
        (["backbone=random", "activation_checkpointing=true"], "activation_checkpointing=true: expected false"),
        (["backbone=random", "compile=blocks"], "compile=blocks: expected auto, off or step"),
        (["backbone=ice"], "backbone=ice: invalid value"),
    ],
)
def test_what_excludes_each_other_is_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_run(*overrides)


def test_a_head_without_its_class_token_is_one_line(file):
    run = compose_run(*TINY_MODEL, "head=cls", *LIVE, f"model.checkpoint={file}")
    run.dataset.num_classes = 10
    with pytest.raises(ConfigError, match=r"model.checkpoint=.*: the file lacks backbone.class_token"):
        preflight(run)


@pytest.mark.slow
def test_a_moved_file_is_one_line_where_the_trained_model_is_loaded(tmp_path, file):
    moved = tmp_path / "weights.pt"
    moved.write_bytes(file.read_bytes())
    folder = trained(tmp_path / "output", moved)
    moved.unlink()
    advice = "copy the file with SHA-256 [0-9a-f]{64} there$"
    with pytest.raises(UserError, match=rf"model.checkpoint=.*weights.pt: cannot be read: No such file.*; {advice}"):
        trained_model(folder)


def test_the_way_of_training_the_backbone_is_part_of_the_identity(file):
    given = [*TINY_MODEL, f"model.checkpoint={file}"]
    modes = [compose_run(*given, "augmentation=none", f"backbone={mode}") for mode in ("train", "finetune", "frozen")]
    scaled = compose_run(*given, "augmentation=none", "backbone=finetune", "optimizer.backbone_lr_scale=0.1")
    assert len({fingerprint(run) for run in (*modes, scaled)}) == 4
    assert fingerprint(modes[0]) == fingerprint(compose_run(*given, "augmentation=none"))


def test_the_backbone_has_a_learning_rate_of_its_own(file):
    keys = ["backbone=finetune", f"model.checkpoint={file}", "optimizer.backbone_lr_scale=0.1", "optimizer.lr=0.01"]
    run = compose_run(*TINY_MODEL, *keys, "head=seqattn", "optimizer.weight_decay=0.05")
    run.dataset.num_classes = 10
    model = model_of(run)
    optimizer, plain = (build_optimizer(model, config) for config in (run.optimizer, compose_run().optimizer))
    build_schedule(optimizer, run.schedule, steps=10, warmup=0).step_update(0)
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    decayed = {id(p) for group in plain.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        assert group["lr"] == pytest.approx(0.001 if name.startswith("backbone.") else 0.01), name
        assert group["weight_decay"] == (0.05 if id(parameter) in decayed else 0.0), name


def test_a_probe_is_the_head_of_its_classifier():
    run = compose_run("model=timm", "model.name=test_vit", "dataset.image_size=160", "head=gap", "heads=2")
    run.dataset.num_classes = 10
    model = model_of(run).eval()
    tokens = model.forward_features(torch.randn(2, 1, 160, 160))
    assert model.backbone.prefix == 1
    torch.testing.assert_close(Probe(model)(tokens), model.forward_head(tokens))
