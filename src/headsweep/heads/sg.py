"""The `sg` head: the gram query without attention (an ablation of the SeqAttention paper's code, models/sg_cct.py).

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head
from headsweep.heads.layers.gram import GramQuery


@final
class SgHead(Head):
    """Classifies one gram query per branch.

    Args:
        width: D, a multiple of 8.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        gram_dim: G, channels of the Gram matrix; a multiple of 16.
    """

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, gram_dim: int = 64) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.query = GramQuery(heads, width, gram_dim)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        return self.query(tokens)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the shares in the Gram vectors, which are sums over the tokens."""
        return self.query.token_weights(tokens)
