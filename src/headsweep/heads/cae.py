"""The `cae` head: the attentive probe of CAE (arXiv 2202.03026): cross-attention with three layer norms.

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.cross_attention import Linear, after_norm, attend, attention_weights, check_attention_heads
from headsweep.heads.layers.stacked import StackedLayerNorm, StackedLinear, stacked_linear


@final
class CaeHead(Head):
    """A learned query, keys and values are each normalised first; the projected attention is what is pooled.

    The query starts at zero, so that all tokens start with equal weights. Query, key and value maps have no bias.

    Args:
        width: D, a multiple of attention_heads.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        attention_heads: of one branch.
    """

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, attention_heads: int = 8) -> None:
        super().__init__(width, num_classes, heads, tokens)
        check_attention_heads(width, attention_heads)
        self.attention_heads = attention_heads
        self.token = nn.Parameter(torch.zeros(heads, width))
        self.query_norm = StackedLayerNorm(heads, width)
        self.key_norm = StackedLayerNorm(heads, width)
        self.value_norm = StackedLayerNorm(heads, width)
        self.query = nn.Parameter(torch.empty(heads, width, width))
        self.key = nn.Parameter(torch.empty(heads, width, width))
        self.value = nn.Parameter(torch.empty(heads, width, width))
        self.proj = StackedLinear(heads, width, width)
        for weight in (self.query, self.key, self.value):
            trunc_normal_(weight, std=0.02)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        value = after_norm(self.value_norm, self.value)
        return self.proj(attend(self._query(), tokens, self._key(), value, self.attention_heads, scaled=True))

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the mean over attention heads of the weights."""
        return attention_weights(self._query(), tokens, self._key(), self.attention_heads, scaled=True)

    def _query(self) -> Float[Tensor, "1 k d"]:
        return stacked_linear(self.query_norm(self.token.unsqueeze(0)), self.query)

    def _key(self) -> Linear:
        return after_norm(self.key_norm, self.key)
