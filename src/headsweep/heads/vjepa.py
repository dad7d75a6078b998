"""The `vjepa` head: the attentive probe of V-JEPA (arXiv 2404.08471) and, with depth > 1, of V-JEPA 2 (2506.09985).

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.cross_attention import (
    Linear,
    after_norm,
    attend,
    attention_weights,
    check_attention_heads,
)
from headsweep.heads.layers.mlp import StackedMlp
from headsweep.heads.layers.self_attention import SelfAttentionBlock
from headsweep.heads.layers.stacked import StackedLayerNorm, StackedLinear


@final
class VJepaHead(Head):
    """y = q + attention of the learned query q to LayerNorm(x); z = y + MLP(LayerNorm(y)).

    Args:
        width: D, a multiple of attention_heads.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        attention_heads: of one branch.
        depth: 1, and the number of self-attention blocks before the cross-attention, which each branch has of its own.
    """

    def __init__(
        self, width: int, num_classes: int, heads: int, tokens: int, *, attention_heads: int = 8, depth: int = 1
    ) -> None:
        super().__init__(width, num_classes, heads, tokens)
        check_attention_heads(width, attention_heads)
        if depth < 1:
            raise ValueError(f"depth={depth}: expected an integer >= 1")
        self.attention_heads = attention_heads
        self.blocks = nn.ModuleList(SelfAttentionBlock(heads, width, attention_heads) for _ in range(depth - 1))
        self.token = nn.Parameter(torch.empty(heads, width))
        self.norm1 = StackedLayerNorm(heads, width)
        self.query = StackedLinear(heads, width, width)
        self.key = StackedLinear(heads, width, width)
        self.value = StackedLinear(heads, width, width)
        self.norm2 = StackedLayerNorm(heads, width)
        self.mlp = StackedMlp(heads, width)
        trunc_normal_(self.token, std=0.02)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        token = self.token.unsqueeze(0)
        value = after_norm(self.norm1, self.value.weight, self.value.bias)
        found = attend(
            self.query(token),
            self._read(tokens),
            self._key(),
            value,
            self.attention_heads,
            scaled=True,
            own_tokens=len(self.blocks) > 0,
        )
        pooled = token + found
        return pooled + self.mlp(self.norm2(pooled))

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the mean over attention heads of the weights in the cross-attention."""
        return attention_weights(
            self.query(self.token.unsqueeze(0)),
            self._read(tokens),
            self._key(),
            self.attention_heads,
            scaled=True,
            own_tokens=len(self.blocks) > 0,
        )

    def _key(self) -> Linear:
        return after_norm(self.norm1, self.key.weight, self.key.bias)

    def _read(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "_ n d"]:
        """Return the input of the cross-attention: that of the head, or (b k) n d, what each branch's blocks return."""
        if not self.blocks:
            return tokens
        count = tokens.shape[1]
        x = tokens.flatten(0, 1).unsqueeze(1).expand(-1, self.heads, -1)
        for block in self.blocks:
            x = block(x, count)
        return x.unflatten(0, (-1, count)).transpose(1, 2).flatten(0, 1)
