"""The `cait` head: a learned class token as the query of class attention (CaiT, arXiv 2103.17239, section 3).

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.class_attention import ClassAttention


@final
class CaitHead(Head):
    """A class token per branch, then class attention.

    Args:
        width: D, a multiple of 32.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
    """

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.token = nn.Parameter(torch.empty(heads, width))
        self.attention = ClassAttention(heads, width)
        trunc_normal_(self.token, std=0.02)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        return self.attention(self.token.expand(tokens.shape[0], -1, -1), tokens)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        return self.attention.token_weights(self.token.expand(tokens.shape[0], -1, -1), tokens)
