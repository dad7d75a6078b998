"""The `seqattn` head: sequence pooling is the query of class attention (the SeqAttention paper).

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head
from headsweep.heads.layers.class_attention import ClassAttention
from headsweep.heads.layers.precision import in_product_dtype
from headsweep.heads.seqpool import SequencePool

torch.fx.wrap("in_product_dtype")  # FX cannot trace autocast or an autograd function


@final
class SeqAttnHead(Head):
    """Sequence pooling, then class attention.

    Args:
        width: D, a multiple of 32.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
    """

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.query = SequencePool(heads, width)
        self.attention = ClassAttention(heads, width)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        tokens = in_product_dtype(tokens)
        return self.attention(self.query(tokens), tokens)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        return self.attention.token_weights(self.query(tokens), tokens)
