"""The blocks of backbones attend by torch's fused kernel, dropout in it."""

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from composing import compose_run
from headsweep.models.build import model_of

COMPACT = ["model=cct_7_3x1", "model.width=32", "model.depth=3", "model.attention_heads=1"]
OPTIONS = "model.options={depth: 3, embed_dim: 32, num_heads: 1, patch_size: 8, attn_drop_rate: 0.1}"
VIT = ["model=timm", "model.name=vit_tiny_patch16_224", OPTIONS]


class Fused(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.dropouts: list[float] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            self.dropouts.append(kwargs["dropout_p"])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [COMPACT, VIT], ids=["compact", "timm"])
def test_every_block_attends_in_one_kernel_that_drops_in_training_alone(options):
    run = compose_run(*options, "dataset=cifar100")
    run.dataset.num_classes = 10
    model, images = model_of(run), torch.zeros(2, 3, 32, 32)
    with Fused() as fused:
        model.train()(images)
        model.eval()(images)
    assert fused.dropouts == [0.1] * 3 + [0.0] * 3
