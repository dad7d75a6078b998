"""The `simpool` head: SimPool (arXiv 2309.06891): the mean token attends to layer-normalised tokens.

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.cross_attention import Linear, after_norm, attention_weights, project_queries
from headsweep.heads.layers.softmax_pool import softmax_pool
from headsweep.heads.layers.stacked import StackedLayerNorm, stacked_linear

torch.fx.wrap("softmax_pool")  # FX cannot trace autocast or an autograd function

LEAST = 1e-6  # value that is raised to the power gamma


@final
class SimPoolHead(Head):
    """u = LayerNorm(x); a = softmax_N(u W_k . W_q mean_N(x) / sqrt(D)); z = sum_n a_n u_n: values are not projected.

    Args:
        width: D.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        gamma: z = (sum_n a_n v_n^gamma)^(1/gamma) with v = u less its least element in the image; None for the mean.
    """

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, gamma: float | None = None) -> None:
        super().__init__(width, num_classes, heads, tokens)
        if gamma is not None and not gamma > 0:
            raise ValueError(f"gamma={gamma}: expected a number > 0, or none for the weighted mean")
        self.gamma = gamma
        self.norm = StackedLayerNorm(heads, width)
        self.query = nn.Parameter(torch.empty(heads, width, width))
        self.key = nn.Parameter(torch.empty(heads, width, width))
        trunc_normal_(self.query, std=0.02)
        trunc_normal_(self.key, std=0.02)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        if self.gamma is not None:
            return self._pool_powers(tokens, self.gamma)
        queries, bias = project_queries(self._query(tokens), self._key(), 1)
        sums, _ = softmax_pool(queries, tokens, bias, scaled=True)
        return (sums - sums.mean(-1, keepdim=True)) * self.norm.weight + self.norm.bias

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the weights a."""
        return attention_weights(self._query(tokens), tokens, self._key(), 1, scaled=True)

    def _query(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        return stacked_linear(tokens.mean(1, keepdim=True).expand(-1, self.heads, -1), self.query)

    def _key(self) -> Linear:
        return after_norm(self.norm, self.key)

    def _pool_powers(self, tokens: Float[Tensor, "b n d"], gamma: float) -> Float[Tensor, "b k d"]:
        """Return the generalised weighted mean; normalised tokens are formed, as each branch raises its own."""
        normalised = F.layer_norm(tokens, (self.width,)).unsqueeze(1)
        values = normalised * self.norm.weight.unsqueeze(1) + self.norm.bias.unsqueeze(1)
        powers = (values - values.amin((2, 3), keepdim=True) + LEAST).pow(gamma)
        return (self.token_weights(tokens).unsqueeze(2) @ powers).squeeze(2).pow(1 / gamma)
