"""The memory layout of a tokenizer's planes on a CPU changes its time, and in float32 no bit of it."""

import dataclasses

import pytest
import torch
from making import TINY
from torch import Tensor, nn

from headsweep.config import Tokenizer as TokenizerKind
from headsweep.models.compact import Tokenizer

MODELS = {
    "one layer": TINY,
    "two layers": dataclasses.replace(TINY, tokenizer_layers=2),
    "patch": dataclasses.replace(TINY, tokenizer=TokenizerKind.patch, tokenizer_kernel=4),
}


def tokenizer(model: str) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(MODELS[model], 3)


def plain(made: Tokenizer, images: Tensor) -> Tensor:
    """The layers as they stand, in the layout that they are given."""
    for layer in made.layers:
        assert isinstance(layer, nn.Sequential)
        images = layer(images)
    return images.flatten(2).transpose(1, 2)


def gradients(made: Tokenizer, tokens: Tensor) -> list[Tensor]:
    made.zero_grad()
    (tokens.float() * torch.linspace(-1, 1, tokens.numel()).view(tokens.shape)).sum().backward()
    return [parameter.grad.clone() for parameter in made.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("images", [1, 5, 8])  # 5: not as many for each of two threads
def test_float32_has_the_bits_of_the_plain_layers(model: str, images: int) -> None:
    made, batch = tokenizer(model), torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found, expected = made(batch), plain(made, batch)
    assert torch.equal(found, expected)
    for one, other in zip(gradients(made, found), gradients(made, expected), strict=True):
        assert torch.equal(one, other)


def test_bfloat16_differs_by_rounding() -> None:
    made, batch = tokenizer("two layers"), torch.randn(4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = made(batch), plain(made, batch)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    for one, other in zip(gradients(made, found), gradients(made, expected), strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_tokens_are_contiguous_without_a_copy(bfloat16: bool) -> None:
    made = tokenizer("two layers")
    seen: list[Tensor] = []
    made.layers[-1].get_submodule("2").register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        tokens = made(torch.randn(2, 3, 32, 32))
    assert tokens.is_contiguous()
    assert tokens.data_ptr() == seen[0].data_ptr()
