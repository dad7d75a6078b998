"""The maximum of a window before the ReLU: the bits of the published order, gradients included."""

import pytest
import torch
from torch import Tensor, nn

from composing import compose_run
from headsweep.config import CompactConfig
from headsweep.models.compact.tokenizer import Tokenizer

PUBLISHED = nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1))


def after_the_convolution() -> nn.Sequential:
    model = compose_run("model=cct_7_3x1", "model.width=32", "model.attention_heads=1").model
    assert isinstance(model, CompactConfig)
    layer = Tokenizer(model, 3).layers[0]
    assert isinstance(layer, nn.Sequential) and isinstance(layer[0], nn.Conv2d)
    return layer[1:]


def outcome(layers: nn.Module, planes: Tensor) -> tuple[Tensor, Tensor]:
    """Values, and the gradient of the input for other weights of each value."""
    planes = planes.clone().requires_grad_()
    values = layers(planes)
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1)).to(values.dtype)
    return values, torch.autograd.grad((values * weights).sum(), planes)[0]


def planes_of(kind: str) -> Tensor:
    drawn = torch.randn(4, 8, 13, 13, generator=torch.Generator().manual_seed(0))  # windows overlap and leave the image
    kinds = {
        "any": drawn,
        "all negative": -drawn.abs() - 0.1,
        "ties": (drawn * 2).round(),  # among positive numbers, zeros and negative ones
        "zeros": drawn.clamp(max=0),
        "bfloat16": drawn.bfloat16(),
        "not a number": drawn.masked_fill(drawn > 2, torch.nan),
    }
    return kinds[kind]


@pytest.mark.parametrize("kind", ["any", "all negative", "ties", "zeros", "bfloat16", "not a number"])
def test_pooling_before_the_relu_changes_no_value_and_no_gradient(kind: str) -> None:
    layers = after_the_convolution()
    assert [type(layer) for layer in layers] == [nn.MaxPool2d, nn.ReLU]
    for own, published in zip(outcome(layers, planes_of(kind)), outcome(PUBLISHED, planes_of(kind)), strict=True):
        torch.testing.assert_close(own, published, rtol=0, atol=0, equal_nan=True)
