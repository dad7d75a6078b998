"""The `map` head: multihead attention pooling with an MLP, of SigLIP and its code big_vision (arXiv 2106.04560).

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.cross_attention import attend, attention_weights, check_attention_heads
from headsweep.heads.layers.mlp import StackedMlp
from headsweep.heads.layers.stacked import StackedLayerNorm, StackedLinear


@final
class MapHead(Head):
    """A learned query attends to the tokens; y is the projected result; z = y + MLP(LayerNorm(y)).

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
        self.probe = nn.Parameter(torch.empty(heads, width))
        self.query = StackedLinear(heads, width, width)
        self.key = StackedLinear(heads, width, width)
        self.value = StackedLinear(heads, width, width)
        self.proj = StackedLinear(heads, width, width)
        self.norm = StackedLayerNorm(heads, width)
        self.mlp = StackedMlp(heads, width)
        trunc_normal_(self.probe, std=0.02)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        key, value = (self.key.weight, self.key.bias), (self.value.weight, self.value.bias)
        pooled = self.proj(attend(self.query(self.probe.unsqueeze(0)), tokens, key, value, self.attention_heads))
        return pooled + self.mlp(self.norm(pooled))

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the mean over attention heads of the weights."""
        key = (self.key.weight, self.key.bias)
        return attention_weights(self.query(self.probe.unsqueeze(0)), tokens, key, self.attention_heads)
