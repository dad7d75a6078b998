"""Multi-head attention of one query per branch to the tokens, without forming keys and values.

As in class attention (docs/heads.md), for branch k and attention head h with query q, keys W_k x_n + b_k and values
W_v x_n + b_v:

    score_n = q . (W_k x_n + b_k) = (W_k^T q) . x_n + q . b_k
    sum_n a_n (W_v x_n + b_v) = W_v (sum_n a_n x_n) + b_v

The term q . b_k is the same for every token and changes no weight; published heads have it, so it is kept as a
parameter whose gradient is zero.

Legend: b images, n tokens, d width, k branches, h attention heads of a branch, j = k h queries of an image, o outputs.
A leading axis of #b is b, or 1 where all images share the queries.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.layers.softmax_pool import softmax_pool
from headsweep.heads.layers.stacked import StackedLayerNorm, stacked_linear

torch.fx.wrap("softmax_pool")  # FX cannot trace autocast or an autograd function

Linear = tuple[Float[Tensor, "k d d"], Float[Tensor, "k d"]]  # weight and bias of each branch


def check_attention_heads(width: int, attention_heads: int) -> None:
    """Raise ValueError unless a vector of `width` can be split into that many."""
    if attention_heads < 1 or width % attention_heads:
        raise ValueError(f"attention_heads={attention_heads}: expected a divisor of width={width}")


def after_norm(
    norm: StackedLayerNorm, weight: Float[Tensor, "k d d"], bias: Float[Tensor, "k d"] | float = 0.0
) -> Linear:
    """Return a linear map of layer-normalised tokens as one of tokens of deviation 1, centred or not.

    The norm's gain, centring and bias are folded in; what is left of it is the deviation (`softmax_pool`).
    """
    folded = weight * norm.weight.unsqueeze(1)
    shift = torch.bmm(weight, norm.bias.unsqueeze(-1)).squeeze(-1)
    return folded - folded.mean(-1, keepdim=True), shift + bias


def attend(
    query: Float[Tensor, "#b k d"],
    tokens: Float[Tensor, "_ n d"],
    key: Linear,
    value: Linear,
    attention_heads: int,
    *,
    scaled: bool = False,
    own_tokens: bool = False,
) -> Float[Tensor, "b k d"]:
    """Return the attention-weighted sum of the values, attention heads concatenated.

    Args:
        query: q, all attention heads of a branch concatenated.
        tokens: x (b n d), or if `own_tokens` (b k n d) with the first two axes as one.
        key: W_k and b_k.
        value: W_v and b_v.
        attention_heads: h, a divisor of d.
        scaled: divide each token by its deviation: key and value are then from `after_norm`.
        own_tokens: each branch has tokens of its own.
    """
    queries, bias = _queries_of_tokens(query, tokens, key, attention_heads, own_tokens)
    sums, _ = softmax_pool(queries, tokens, bias, scaled=scaled)
    weight, shift = value
    return project_values(_of_images(sums, query, own_tokens), weight, attention_heads) + shift


def attention_weights(
    query: Float[Tensor, "#b k d"],
    tokens: Float[Tensor, "_ n d"],
    key: Linear,
    attention_heads: int,
    *,
    scaled: bool = False,
    own_tokens: bool = False,
) -> Float[Tensor, "b k n"]:
    """Return the mean over attention heads of the weights in `attend`."""
    queries, _ = _queries_of_tokens(query, tokens, key, attention_heads, own_tokens)
    read = F.layer_norm(tokens, tokens.shape[-1:]) if scaled else tokens
    shares = torch.bmm(queries, read.transpose(1, 2)).softmax(-1)
    return _of_images(shares, query, own_tokens).unflatten(1, (-1, attention_heads)).mean(2)


def _queries_of_tokens(
    query: Float[Tensor, "#b k d"], tokens: Float[Tensor, "_ n d"], key: Linear, attention_heads: int, own_tokens: bool
) -> tuple[Tensor, Tensor]:
    """Return the queries, and what is added to their scores, of each element of the first axis of `tokens`."""
    both, count, heads = project_queries(query, key, attention_heads), tokens.shape[0], query.shape[1]
    if not own_tokens:
        return both[0].expand(count, -1, -1), both[1].expand(count, -1, -1)
    by_branch = (part.unflatten(1, (heads, -1)).expand(count // heads, -1, -1, -1).flatten(0, 1) for part in both)
    return next(by_branch), next(by_branch)


def _of_images(x: Float[Tensor, "_ _ _"], query: Float[Tensor, "_ k d"], own_tokens: bool) -> Float[Tensor, "b j _"]:
    """Return what was found for each image and branch with all branches of an image on one axis."""
    return x.unflatten(0, (-1, query.shape[1])).flatten(1, 2) if own_tokens else x


def project_queries(
    query: Float[Tensor, "#b k d"], key: Linear, attention_heads: int
) -> tuple[Float[Tensor, "#b j d"], Float[Tensor, "#b j 1"]]:
    """Return the vectors whose products with the tokens are the scores, divided by sqrt(d / h), and what is added."""
    weight, bias = (part.unflatten(1, (attention_heads, -1)).flatten(0, 1) for part in key)
    split = query.unflatten(-1, (attention_heads, -1)).flatten(1, 2)
    split = split * split.shape[-1] ** -0.5
    return stacked_linear(split, weight.transpose(1, 2)), (split * bias).sum(-1, keepdim=True)


def project_values(
    sums: Float[Tensor, "b j d"], weight: Float[Tensor, "k o d"], queries: int
) -> Float[Tensor, "b k o"]:
    """Return W_v of each branch times its sums of tokens: a share of its rows for each of the branch's `queries`."""
    rows = weight.unflatten(1, (queries, -1)).flatten(0, 1)
    return stacked_linear(sums, rows).unflatten(1, (-1, queries)).flatten(-2)
