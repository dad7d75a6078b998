"""The `at` head: a mean of linear maps over the token axis is the single query of class attention.

An ablation of the SeqAttention paper's code (models/at_cct.py).

Legend: b images, n tokens, d width, k branches, i = n tokens in, o = 128 outputs over the token axis.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head
from headsweep.heads.layers.class_attention import ClassAttention
from headsweep.heads.layers.stacked import StackedLinear

OUTPUTS = 128  # linear maps over the token axis, of which the query is the mean


@final
class AtHead(Head):
    """One query that all branches share, then class attention.

    Args:
        width: D, a multiple of 32.
        num_classes: C.
        heads: K.
        tokens: N.
    """

    fixed_tokens: ClassVar[bool] = True

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.query = StackedLinear(1, tokens, OUTPUTS)
        self.attention = ClassAttention(heads, width)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return the shared query as refined by each branch."""
        return self.attention(self._query(tokens), tokens)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        return self.attention.token_weights(self._query(tokens), tokens)

    def _query(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return the mean of the outputs: by linearity, one output of the mean weight and the mean bias."""
        self.check_tokens("at", tokens)
        return (self.query.weight.mean(1) @ tokens + self.query.bias.mean(1)).expand(-1, self.heads, -1)
