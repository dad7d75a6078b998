"""The `ga` head: Gramian attention (ICCV 2023): the tokens' Gram matrix is the query of class attention.

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head
from headsweep.heads.layers.class_attention import ClassAttention
from headsweep.heads.layers.gram import GramQuery
from headsweep.heads.layers.precision import in_product_dtype

torch.fx.wrap("in_product_dtype")  # FX cannot trace autocast or an autograd function


@final
class GaHead(Head):
    """Gram query, then class attention.

    Args:
        width: D, a multiple of 32.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        gram_dim: G, channels of the Gram matrix; a multiple of 16.
    """

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, gram_dim: int = 64) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.query = GramQuery(heads, width, gram_dim)
        self.attention = ClassAttention(heads, width)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        tokens = in_product_dtype(tokens)
        return self.attention(self.query(tokens), tokens)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        return self.attention.token_weights(self.query(tokens), tokens)
