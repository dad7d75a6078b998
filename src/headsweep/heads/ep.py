"""The `ep` head: efficient probing (arXiv 2506.10178): learned queries attend to the tokens without key projection.

Legend: b images, n tokens, d width, e pooled width, k branches, m queries of a branch, j = k m queries of an image.
"""

from typing import final

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.cross_attention import project_values
from headsweep.heads.layers.softmax_pool import softmax_pool

torch.fx.wrap("softmax_pool")  # FX cannot trace autocast or an autograd function


@final
class EpHead(Head):
    """a_m = softmax_N(x q_m / sqrt(D)); z = the M parts of W_v (D to D / d_out), part m of the sum weighted by a_m.

    Args:
        width: D, a multiple of d_out times queries.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        queries: M, of one branch.
        d_out: D over the pooled width, as in the authors' code.
    """

    def __init__(
        self, width: int, num_classes: int, heads: int, tokens: int, *, queries: int = 32, d_out: int = 1
    ) -> None:
        if min(queries, d_out) < 1 or width % (d_out * queries):
            raise ValueError(f"width={width}: expected a multiple of d_out={d_out} times queries={queries}")
        super().__init__(width, num_classes, heads, tokens, pooled_width=width // d_out)
        self.queries = queries
        self.query = nn.Parameter(torch.empty(heads, queries, width))
        self.value = nn.Parameter(torch.empty(heads, self.pooled_width, width))
        trunc_normal_(self.query, std=0.02)
        trunc_normal_(self.value, std=0.02)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k e"]:
        """Return W_v of each query's weighted mean of the tokens, concatenated."""
        sums, _ = softmax_pool(self._scaled_queries().expand(tokens.shape[0], -1, -1), tokens)
        return project_values(sums, self.value, self.queries)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the mean over queries of the weights."""
        shares = (self._scaled_queries() @ tokens.transpose(1, 2)).softmax(-1)
        return shares.unflatten(1, (self.heads, self.queries)).mean(2)

    def _scaled_queries(self) -> Float[Tensor, "j d"]:
        return self.query.flatten(0, 1) * self.width**-0.5
