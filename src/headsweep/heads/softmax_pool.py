"""Softmax-weighted sums of tokens: what every head that attends with few queries spends its time on.

For a query q of an image with tokens t_n, and r_n = 1 (plain) or one over the deviation of t_n (scaled):

    s_n = r_n (q . t_n) + b        a = softmax(s)        z = sum_n a_n r_n t_n

The gradient is written by hand because that of the tokens is as large as the batch's tokens. Autograd would write such
a tensor for the scores, for the sums and for a layer norm and add them; here it is one product of stacked factors,
written once, and normalised tokens are never formed. There is no second derivative.

Legend: b images, n tokens, d width, j queries of an image.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from headsweep.heads.precision import full_precision, product_dtype

EPSILON = 1e-5  # of the layer norm whose scale this is


def softmax_pool(
    queries: Float[Tensor, "b j d"],
    tokens: Float[Tensor, "b n d"],
    bias: Float[Tensor, "b j 1"] | None = None,
    *,
    scaled: bool = False,
) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b j 1"]]:
    """The sums z and the logarithm of the sum of exp(s).

    Args:
        queries: q. Where `scaled`, queries and what is made of z should ignore a constant added to all features of a
            token, as the mean of a token is left in: then this is attention to layer-normalised tokens.
        tokens: t.
        bias: b; none is 0.
        scaled: divide each token by its deviation.
    """
    queries = queries.to(product_dtype(queries))
    with full_precision(tokens.device):
        return SoftmaxPool.apply(queries, tokens, bias, scaled)


class SoftmaxPool(torch.autograd.Function):
    """Products in the type of the queries, all else in float32 at least."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Float[Tensor, "b j d"],
        tokens: Float[Tensor, "b n d"],
        bias: Float[Tensor, "b j 1"] | None,
        scaled: bool,
    ) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b j 1"]]:
        """One product for the scores and one for the sums."""
        operand = tokens.to(queries.dtype)
        scale, mean = _scale_and_mean(tokens) if scaled else (None, None)
        scores = torch.bmm(queries, operand.transpose(1, 2))
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        scores = scores if scale is None else scores * scale
        log_sums = (scores if bias is None else scores + bias).logsumexp(-1, keepdim=True)
        _, weights = _shares(scores, bias, log_sums, scale)
        ctx.save_for_backward(queries, operand, bias, scores, log_sums, scale, mean)
        ctx.dtype = tokens.dtype
        return torch.bmm(weights.to(queries.dtype), operand), log_sums

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_sums: Float[Tensor, "b j d"], by_log_sums: Float[Tensor, "b j 1"]
    ) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b n d"], Float[Tensor, "b j 1"] | None, None]:
        """Two products for the queries and one for the tokens."""
        queries, operand, bias, scores, log_sums, scale, mean = ctx.saved_tensors
        shares, weights = _shares(scores, bias, log_sums, scale)
        by_share = torch.bmm(by_sums, operand.transpose(1, 2)) * weights
        by_score = torch.addcmul(by_share, shares, by_log_sums - by_share.sum(-1, keepdim=True))
        by_product = (by_score if scale is None else by_score * scale).to(queries.dtype)
        factors = (
            torch.cat([by_product, weights.to(queries.dtype)], 1).transpose(1, 2),
            torch.cat([queries, by_sums], 1),
        )
        by_tokens = torch.bmm(*factors)
        if scale is not None:  # through r, whose own gradient times r is the sum over queries of what follows
            by_scale = torch.addcmul(by_share, by_score, scores).sum(1, keepdim=True)
            change = (by_scale * scale.square() / -operand.shape[-1]).transpose(1, 2)
            by_tokens.addcmul_(operand, change).sub_(change * mean)
        by_bias = by_score.sum(-1, keepdim=True) if ctx.needs_input_grad[2] else None
        return torch.bmm(by_product, operand), by_tokens.to(ctx.dtype), by_bias, None


def _shares(
    scores: Float[Tensor, "b j n"],
    bias: Float[Tensor, "b j 1"] | None,
    log_sums: Float[Tensor, "b j 1"],
    scale: Float[Tensor, "b 1 n"] | None,
) -> tuple[Float[Tensor, "b j n"], Float[Tensor, "b j n"]]:
    """The shares a, and the weights a r; made anew in the backward pass rather than kept for it."""
    shares = (scores - (log_sums if bias is None else log_sums - bias)).exp()
    return shares, shares if scale is None else shares * scale


def _scale_and_mean(tokens: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b 1 n"], Float[Tensor, "b n 1"]]:
    """One over the deviation, and the mean, of each token's features."""
    precise = torch.promote_types(tokens.dtype, torch.float32)
    mean = tokens.mean(-1, keepdim=True, dtype=precise)
    square = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True, dtype=precise).square() / tokens.shape[-1]
    return (square - mean.square()).clamp_min(0).add(EPSILON).rsqrt().transpose(1, 2), mean
