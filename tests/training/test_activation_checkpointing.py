"""Recomputing blocks costs time and saves memory, and changes no bit."""

import pytest
import torch

from commands import TINY_RUN
from comparing import differences
from composing import compose_run
from headsweep.errors import ConfigError
from headsweep.models.build import model_of
from headsweep.models.meta_device import on_meta_device
from headsweep.plan.plan import freeze, make_plan
from headsweep.run.train_run import preflight, train_folder
from headsweep.tracking.run_folder import RunFolder
from memory import saved_bytes

SHORT = TINY_RUN
COMPACT = ["model.depth=3", "model.dropout=0.2", "model.attention_dropout=0.2", "model.drop_path=0.2"]
VIT = ["model=timm", "model.name=vit_tiny_patch16_224"]
VIT_OPTIONS = ["model.options={depth: 3, embed_dim: 32, num_heads: 1, patch_size: 4, proj_drop_rate: 0.2}"]


def trained(output, *overrides: str) -> RunFolder:
    plan = make_plan([compose_run(*overrides, "duration='3 steps'", f"paths.output={output}")])
    freeze(plan, {plan.runs[0].fingerprint: preflight(plan.runs[0].run)})
    train_folder(plan.folders[0], lambda progress: None)
    return plan.folders[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [[*SHORT, *COMPACT, "head=ga", "heads=2"], [*SHORT[3:], *VIT, *VIT_OPTIONS]],
    ids=["compact", "timm"],
)
def test_recomputed_blocks_drop_the_same_and_end_with_the_same_bits(tmp_path, options):
    plain = trained(tmp_path / "plain", *options)
    recomputed = trained(tmp_path / "recomputed", *options, "activation_checkpointing=true")
    assert differences(plain, recomputed) == []


@pytest.mark.slow
@pytest.mark.parametrize("options", [COMPACT, [*VIT, *VIT_OPTIONS]], ids=["compact", "timm"])
def test_less_is_kept_for_the_backward_pass(options):
    def kept(*overrides: str) -> int:
        run = compose_run(*options, *overrides)
        run.dataset.num_classes = 10
        model = model_of(run).train()
        size = run.dataset.image_size
        return saved_bytes(model, torch.zeros(8, run.dataset.channels, size, size))

    assert kept("activation_checkpointing=true") < 0.5 * kept()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet26", "has batch normalisation, which would count each batch twice"),
        ("convit_tiny", "cannot recompute its blocks"),
    ],
)
def test_a_backbone_that_cannot_is_named(name, reason):
    run = compose_run("model=timm", f"model.name={name}", "activation_checkpointing=true", "dataset.image_size=224")
    run.dataset.num_classes = 10
    with on_meta_device(), pytest.raises(ConfigError) as caught:
        model_of(run)
    assert str(caught.value) == f"activation_checkpointing=true: expected false: model.name={name} {reason}"
