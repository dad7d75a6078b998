"""The memory layout of a tokenizer's planes on a CPU changes its time, and in float32 no bit of it."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from headsweep.config import Tokenizer as TokenizerKind
from headsweep.models.compact.memory_layout import arrange_for_convolution
from headsweep.models.compact.tokenizer import Tokenizer
from making import TINY

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


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_images_are_convolved_with_channels_last_where_that_is_the_same() -> None:
    images = torch.randn(13, 3, 8, 8)
    with threads(1):
        assert is_last(arrange_for_convolution(images, overlaps=True))
        assert not is_last(arrange_for_convolution(images, overlaps=False))
        assert not is_last(arrange_for_convolution(images[:1], overlaps=True))
        assert not is_last(arrange_for_convolution(torch.randn(13, 4, 8, 8), overlaps=True))
    with threads(2):
        assert not is_last(arrange_for_convolution(images, overlaps=True))
        with torch.no_grad():
            assert is_last(arrange_for_convolution(images, overlaps=True))


def is_last(planes: Tensor) -> bool:
    return planes.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("images", [1, 8, 13])  # 13: not as many for each of two threads
def test_float32_has_the_bits_of_the_plain_layers(model: str, images: int) -> None:
    made, batch = tokenizer(model), torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with threads(2):
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
