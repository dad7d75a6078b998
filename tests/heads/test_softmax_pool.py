"""Softmax pooling with its hand-written gradient equals attention over layer-normalised tokens with autograd's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headsweep.heads.layers.softmax_pool import softmax_pool

Pool = Callable[[Tensor, Tensor, Tensor | None, bool], tuple[Tensor, Tensor]]


def plain(queries: Tensor, tokens: Tensor, bias: Tensor | None, scaled: bool) -> tuple[Tensor, Tensor]:
    tokens = F.layer_norm(tokens, tokens.shape[-1:]) if scaled else tokens
    scores = queries @ tokens.transpose(1, 2) + (0 if bias is None else bias)
    return scores.softmax(-1) @ tokens, scores.logsumexp(-1, keepdim=True)


def pooled_sums(queries: Tensor, tokens: Tensor, bias: Tensor | None, scaled: bool) -> tuple[Tensor, Tensor]:
    return softmax_pool(queries, tokens, bias, scaled=scaled)


def inputs(dtype: torch.dtype, mean: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, tokens away from the normal distribution, a bias."""
    torch.manual_seed(0)
    queries, tokens = 0.3 * torch.randn(3, 5, 32, dtype=dtype), 1.7 * torch.randn(3, 9, 32, dtype=dtype) + mean
    return queries.requires_grad_(), tokens.requires_grad_(), torch.randn(3, 5, 1, dtype=dtype).requires_grad_()


def with_gradients(pool: Pool, queries: Tensor, tokens: Tensor, bias: Tensor | None, scaled: bool) -> list[Tensor]:
    """The sums, the logarithms, and the gradients; constants do not count where tokens are scaled."""
    centred = queries - queries.mean(-1, keepdim=True) if scaled else queries
    sums, log_sums = pool(centred, tokens, bias, scaled)
    sums = sums - sums.mean(-1, keepdim=True) if scaled else sums
    direction = torch.linspace(-1, 2, sums.numel(), dtype=sums.dtype).view_as(sums)
    value = (sums * direction).sum() + log_sums.square().sum()
    expected = (queries, tokens) if bias is None else (queries, tokens, bias)
    return [sums, log_sums, *torch.autograd.grad(value, expected)]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_equals_attention_over_normalised_tokens(scaled: bool, biased: bool) -> None:
    queries, tokens, bias = inputs(torch.float64)
    given = (queries, tokens, bias if biased else None, scaled)
    for a, b in zip(with_gradients(pooled_sums, *given), with_gradients(plain, *given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_mean_far_from_zero_loses_little_precision_in_float32() -> None:
    """The variance is the mean of squares less the square of the mean."""
    queries, tokens, _ = inputs(torch.float32, mean=17)
    double = (x.detach().double().requires_grad_() for x in (queries, tokens))
    got, expected = with_gradients(pooled_sums, queries, tokens, None, True), with_gradients(plain, *double, None, True)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm()


def test_products_are_bfloat16_under_autocast_and_gradients_of_the_inputs_type() -> None:
    queries, tokens, _ = inputs(torch.float32)

    def autocast(*given: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            sums, log_sums = pooled_sums(*given)
        assert (sums.dtype, log_sums.dtype) == (torch.bfloat16, torch.float32)
        return sums, log_sums

    got = with_gradients(autocast, queries, tokens, None, True)
    expected = with_gradients(plain, queries, tokens, None, True)
    assert all(gradient.dtype == torch.float32 for gradient in got[2:])
    assert all((a - b).norm() < 0.02 * b.norm() for a, b in zip(got, expected, strict=True))


def test_constant_tokens_are_pooled() -> None:
    """Their standard deviation is 0."""
    tokens = torch.full((1, 4, 32), 3.0, requires_grad=True)
    sums, log_sums = softmax_pool(torch.zeros(1, 2, 32), tokens, scaled=True)
    (sums.sum() + log_sums.sum()).backward()
    assert bool(sums.isfinite().all()) and bool(tokens.grad.isfinite().all())
