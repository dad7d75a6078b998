"""Models work in timm's training and validation scripts."""

import re
from pathlib import Path

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import group_parameters, load_checkpoint, load_state_dict, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3, reparameterize_model
from torch import nn

from headsweep.config import HeadConfig, ModelConfig
from headsweep.models import Classifier
from making import RESNET, SEQATTN, SEQPOOL, TIMM, TINY, every_head, of, tiny

NAME = "ga2_cct_7_3x1_32"


def made_by_train() -> Classifier:
    """As the script makes it: options that were not given are None."""
    return timm.create_model(
        NAME,
        pretrained=False,
        in_chans=3,
        num_classes=5,
        drop_rate=0.0,
        drop_path_rate=None,
        drop_block_rate=None,
        global_pool=None,
        bn_momentum=None,
        bn_eps=None,
        scriptable=False,
        checkpoint_path="",
        img_size=8,
        gram_dim=16,
    )


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(4, 3, 8, 8)), torch.arange(4)).backward()
    optimizer.step()


@pytest.mark.slow
def test_train_and_resume_and_validate(tmp_path: Path) -> None:
    model = made_by_train()
    model.get_classifier().weight.data.mul_(0.5)  # --head-init-scale
    model.set_grad_checkpointing(enable=True)
    assert resolve_data_config({"img_size": 8}, model=model)["input_size"] == (3, 8, 8)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.05, layer_decay=0.8)
    ema = ModelEmaV3(model, decay=0.5)
    saver = CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))
    step(model, optimizer)
    ema.update(model)
    saver.save_checkpoint(0, 1.0)
    file = str(tmp_path / "last.pth.tar")
    resumed = made_by_train()
    again = create_optimizer_v2(resumed, opt="adamw", lr=1e-2, weight_decay=0.05, layer_decay=0.8)
    assert resume_checkpoint(resumed, file, again, log_info=False) == 1
    assert again.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
    step(resumed, again)
    validated, averaged = made_by_train(), made_by_train()
    load_checkpoint(validated, file, use_ema=False)
    load_checkpoint(averaged, file, use_ema=True)
    for loaded, saved in ((validated, model), (averaged, ema.module)):
        assert all(
            torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), saved.state_dict().values(), strict=True)
        )
    reparameterize_model(validated.eval())(torch.randn(2, 3, 8, 8))
    assert load_state_dict(file).keys() == model.state_dict().keys()


@every_head
def test_every_parameter_gets_a_gradient(head: HeadConfig) -> None:
    model = tiny(head)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("backbone", [TINY, TIMM, RESNET], ids=lambda model: model.name)
def test_layer_decay_trains_deeper_layers_faster(backbone: ModelConfig) -> None:
    model = of(backbone, SEQATTN, image_size=64)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(scale) == len(list(model.parameters()))
    scales = {name: scale[id(p)] for name, p in model.named_parameters()}
    head = [value for name, value in scales.items() if name.startswith("head.")]
    stem = scales[next(name for name in scales if "tokenizer" in name or "patch_embed" in name or "conv1" in name)]
    inner = {value for name, value in scales.items() if re.search(r"blocks\.\d|layer\d", name)}
    assert set(head) == {1.0} and stem < min(inner) and len(inner) >= 2 and max(inner) < 1.0


def test_group_matcher_orders_layers_from_stem_to_head() -> None:
    model = tiny(SEQPOOL)
    layer = group_parameters(model, model.group_matcher(), reverse=True)
    names = [
        "backbone.positions",
        "backbone.blocks.0.norm1.weight",
        "backbone.blocks.2.norm1.weight",
        "backbone.norm.weight",
    ]
    depths = [layer[name] for name in [*names, "head.classifier.weight"]]
    assert depths == sorted(depths) and len(set(depths[:3])) == 3 and depths[4] > depths[2]


@pytest.mark.parametrize("backbone", [TINY, TIMM], ids=lambda model: model.name)
def test_gradient_checkpointing_gives_the_same_gradients(backbone: ModelConfig) -> None:
    images, gradients = torch.randn(4, 3, 16, 16), []
    for enable in (False, True):
        model = of(backbone, SEQATTN)
        model.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        model(images).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
