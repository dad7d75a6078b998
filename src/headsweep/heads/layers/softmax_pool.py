"""Softmax-weighted sums of tokens: the main cost of every head that attends with few queries.

For a query q of an image with tokens t_n, and r_n = 1 (plain) or one over the deviation of t_n (scaled):

    s_n = r_n (q . t_n) + b        a = softmax(s)        z = sum_n a_n r_n t_n

The gradient is hand-written because that of the tokens is as large as the tokens. Autograd would write such a tensor
for the scores, for the sums and for a layer norm, and add them; here it is one product of stacked factors, written
once, and normalised tokens are never formed. For higher derivatives (`create_graph=True`, `torch.func`), autograd
computes it.

Legend: b images, n tokens, d width, j queries of an image.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.layers.precision import differentiates_by_hand, full_precision, product_dtype

EPSILON = 1e-5  # of the layer norm whose scale this is


def softmax_pool(
    queries: Float[Tensor, "b j d"],
    tokens: Float[Tensor, "b n d"],
    bias: Float[Tensor, "b j 1"] | None = None,
    *,
    scaled: bool = False,
) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b j 1"]]:
    """Return the sums z and the logarithm of the sum of exp(s).

    Args:
        queries: q. Where `scaled`, queries and what is made of z should ignore a constant added to all features of a
            token, as the mean of a token is left in: then this is attention to layer-normalised tokens.
        tokens: t.
        bias: b; none is 0.
        scaled: divide each token by its deviation.
    """
    queries = queries.to(product_dtype(queries))
    with full_precision(tokens.device):
        if not differentiates_by_hand():
            return _pool(queries, tokens, bias, scaled)
        with torch.no_grad():
            scale, mean = _scale_and_mean(tokens) if scaled else (None, None)
        return SoftmaxPool.apply(queries, tokens.to(queries.dtype), bias, scale, mean)


class SoftmaxPool(torch.autograd.Function):
    """Products in the dtype of the queries, everything else in at least float32.

    The scale depends on the tokens: its gradient is a part of theirs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Float[Tensor, "b j d"],
        tokens: Float[Tensor, "b n d"],
        bias: Float[Tensor, "b j 1"] | None,
        scale: Float[Tensor, "b 1 n"] | None,
        mean: Float[Tensor, "b n 1"] | None,
    ) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b j 1"]]:
        """One product for the scores and one for the sums."""
        sums, log_sums, scores = _pool_scaled(queries, tokens, bias, scale)
        ctx.save_for_backward(queries, tokens, bias, scale, mean, scores, log_sums)
        return sums, log_sums

    @staticmethod
    def backward(
        ctx: Any, by_sums: Float[Tensor, "b j d"], by_log_sums: Float[Tensor, "b j 1"]
    ) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b n d"], Float[Tensor, "b j 1"] | None, None, None]:
        """Two products for the queries and one for the tokens."""
        queries, tokens, bias, scale, mean, scores, log_sums = ctx.saved_tensors
        if torch.is_grad_enabled():  # `create_graph=True`: the gradient must be differentiable
            return *_gradient(queries, tokens, bias, scale is not None, (by_sums, by_log_sums)), None, None
        shares, weights = _shares(scores, bias, log_sums, scale)
        by_share = torch.bmm(by_sums, tokens.transpose(1, 2)) * weights
        by_score = torch.addcmul(by_share, shares, by_log_sums - by_share.sum(-1, keepdim=True))
        by_product = (by_score if scale is None else by_score * scale).to(queries.dtype)
        factors = (
            torch.cat([by_product, weights.to(queries.dtype)], 1).transpose(1, 2),
            torch.cat([queries, by_sums], 1),
        )
        by_tokens = torch.bmm(*factors)
        if scale is not None:  # through r: its gradient times r is the sum of the following over queries
            by_scale = torch.addcmul(by_share, by_score, scores).sum(1, keepdim=True)
            change = (by_scale * scale.square() / -tokens.shape[-1]).transpose(1, 2)
            by_tokens.addcmul_(tokens, change).sub_(change * mean)
        by_bias = by_score.sum(-1, keepdim=True) if ctx.needs_input_grad[2] else None
        return torch.bmm(by_product, tokens), by_tokens, by_bias, None, None


def _pool(
    queries: Float[Tensor, "b j d"], tokens: Float[Tensor, "b n d"], bias: Float[Tensor, "b j 1"] | None, scaled: bool
) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b j 1"]]:
    """The same in plain operations, which autograd can differentiate repeatedly."""
    scale = _scale_and_mean(tokens)[0] if scaled else None
    return _pool_scaled(queries, tokens.to(queries.dtype), bias, scale)[:2]


def _gradient(
    queries: Float[Tensor, "b j d"],
    tokens: Float[Tensor, "b n d"],
    bias: Float[Tensor, "b j 1"] | None,
    scaled: bool,
    by_pooled: tuple[Float[Tensor, "b j d"], Float[Tensor, "b j 1"]],
) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b n d"], Float[Tensor, "b j 1"] | None]:
    """The gradient as a differentiable function."""
    if bias is None:
        return *torch.func.vjp(lambda q, t: _pool(q, t, None, scaled), queries, tokens)[1](by_pooled), None
    return torch.func.vjp(lambda q, t, b: _pool(q, t, b, scaled), queries, tokens, bias)[1](by_pooled)


def _pool_scaled(
    queries: Float[Tensor, "b j d"],
    tokens: Float[Tensor, "b n d"],
    bias: Float[Tensor, "b j 1"] | None,
    scale: Float[Tensor, "b 1 n"] | None,
) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b j 1"], Float[Tensor, "b j n"]]:
    """Return the sums, their logarithms, and the scores without the bias."""
    scores = torch.bmm(queries, tokens.transpose(1, 2))
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scores = scores if scale is None else scores * scale
    log_sums = (scores if bias is None else scores + bias).logsumexp(-1, keepdim=True)
    _, weights = _shares(scores, bias, log_sums, scale)
    return torch.bmm(weights.to(queries.dtype), tokens), log_sums, scores


def _shares(
    scores: Float[Tensor, "b j n"],
    bias: Float[Tensor, "b j 1"] | None,
    log_sums: Float[Tensor, "b j 1"],
    scale: Float[Tensor, "b 1 n"] | None,
) -> tuple[Float[Tensor, "b j n"], Float[Tensor, "b j n"]]:
    """Return the shares a and the weights a r; the backward pass recomputes them instead of storing them."""
    shares = (scores - (log_sums if bias is None else log_sums - bias)).exp()
    return shares, shares if scale is None else shares * scale


def _scale_and_mean(tokens: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b 1 n"], Float[Tensor, "b n 1"]]:
    """One over the deviation, and the mean, of each token's features."""
    precise = torch.promote_types(tokens.dtype, torch.float32)
    mean = tokens.mean(-1, keepdim=True, dtype=precise)
    square = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True, dtype=precise).square() / tokens.shape[-1]
    return (square - mean.square()).clamp_min(0).add(EPSILON).rsqrt().transpose(1, 2), mean
