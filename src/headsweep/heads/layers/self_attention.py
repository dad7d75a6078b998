"""A transformer block over tokens that each branch has of its own.

Legend: b images, n tokens, p = b n, k branches, d width.
"""

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.layers.mlp import StackedMlp
from headsweep.heads.layers.stacked import StackedLayerNorm, StackedLinear


@final
class SelfAttentionBlock(nn.Module):
    """x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)), per branch.

    Args:
        heads: K.
        width: D, a multiple of attention_heads.
        attention_heads: of one branch.
    """

    def __init__(self, heads: int, width: int, attention_heads: int) -> None:
        super().__init__()
        self.heads, self.attention_heads = heads, attention_heads
        self.norm1 = StackedLayerNorm(heads, width)
        self.qkv = StackedLinear(heads, width, 3 * width)
        self.proj = StackedLinear(heads, width, width)
        self.norm2 = StackedLayerNorm(heads, width)
        self.mlp = StackedMlp(heads, width)

    def forward(self, x: Float[Tensor, "p k d"], count: int) -> Float[Tensor, "p k d"]:
        """Return the tokens of all images, which have `count` (n) each."""
        x = x + self.proj(self._attend(self.qkv(self.norm1(x)), count))
        return x + self.mlp(self.norm2(x))

    def _attend(self, qkv: Float[Tensor, "p k _"], count: int) -> Float[Tensor, "p k d"]:
        """Attend among the tokens of one image and one branch."""
        split = qkv.unflatten(-1, (3, self.attention_heads, -1)).unflatten(0, (-1, count))  # b n k 3 h f
        query, key, value = split.permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (b k) h n f
        read = F.scaled_dot_product_attention(query, key, value).unflatten(0, (-1, self.heads))
        return read.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(-2)
