"""The `aim` head: attention pooling of batch-normalised tokens, the probe of AIM (arXiv 2401.08541).

Legend: b images, n tokens, d width, k branches, h attention heads of a branch, m queries of a branch, g = k h,
j = k h m queries of an image.
"""

from typing import final

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.cross_attention import check_attention_heads, project_values
from headsweep.heads.layers.softmax_pool import softmax_pool
from headsweep.heads.layers.stacked import (
    StackedBatchNorm,
    add_converted_keys,
    drop_converted_keys,
    normalise_branches,
    stacked_linear,
)

torch.fx.wrap("softmax_pool")  # FX cannot trace autocast or an autograd function

EPSILON = 1e-6  # of the batch norm


@final
class AimHead(Head):
    """Batch norm without gain and bias, shared by all branches; multi-head attention; mean over queries.

    Keys and values are linear without bias and need not be formed (`cross_attention`).

    Args:
        width: D, a multiple of attention_heads.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        queries: learned queries of one branch.
        attention_heads: of one branch.
    """

    def __init__(
        self, width: int, num_classes: int, heads: int, tokens: int, *, queries: int = 1, attention_heads: int = 8
    ) -> None:
        super().__init__(width, num_classes, heads, tokens)
        check_attention_heads(width, attention_heads)
        if queries < 1:
            raise ValueError(f"queries={queries}: expected an integer >= 1")
        self.attention_heads = attention_heads
        self.norm = StackedBatchNorm(1, width, eps=EPSILON, affine=False)
        self.query = nn.Parameter(torch.empty(heads, queries, width))
        self.key = nn.Parameter(torch.empty(heads, width, width))
        self.value = nn.Parameter(torch.empty(heads, width, width))
        for parameter in (self.query, self.key, self.value):
            trunc_normal_(parameter, std=0.02)
        self.register_state_dict_post_hook(drop_converted_keys)
        self.register_load_state_dict_pre_hook(add_converted_keys)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        queries = self._token_queries().expand(tokens.shape[0], -1, -1)
        sums, _ = softmax_pool(queries, self._normalised(tokens))
        each = sums.unflatten(1, (self.heads * self.attention_heads, -1))
        return project_values(each.mean(2), self.value, self.attention_heads)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the mean over queries and attention heads of the weights."""
        shares = (self._token_queries() @ self._normalised(tokens).transpose(1, 2)).softmax(-1)
        return shares.unflatten(1, (self.heads, -1)).mean(2)

    def _normalised(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return normalise_branches(self.norm, tokens.flatten(0, 1)).unflatten(0, (-1, tokens.shape[1]))

    def _token_queries(self) -> Float[Tensor, "j d"]:
        """Return the vectors whose products with the tokens are the scores: W_k^T q / sqrt(D / h)."""
        split = self.query.transpose(0, 1).unflatten(-1, (self.attention_heads, -1)).flatten(1, 2)
        keys = self.key.unflatten(1, (self.attention_heads, -1)).flatten(0, 1)
        projected = stacked_linear(split * split.shape[-1] ** -0.5, keys.transpose(1, 2))
        return projected.transpose(0, 1).flatten(0, 1)
