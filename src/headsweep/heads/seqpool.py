"""The `seqpool` head: sequence pooling (arXiv 2104.05704, section 3.3). CCT's own head is K=1.

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.softmax_pool import softmax_pool
from headsweep.heads.layers.stacked import StackedLinear

torch.fx.wrap("softmax_pool")  # FX cannot trace autocast or an autograd function


@final
class SequencePool(nn.Module):
    """w = softmax_N(x a + b), z = sum_n w_n x_n, with a and b per branch."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.score = StackedLinear(heads, width, 1)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return one weighted mean of the tokens per branch."""
        queries = self.score.weight.squeeze(1).expand(tokens.shape[0], -1, -1)
        return softmax_pool(queries, tokens, self.score.bias.expand(tokens.shape[0], -1, -1))[0]

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the weights of the mean, of each branch."""
        scores = F.linear(tokens, self.score.weight.squeeze(1), self.score.bias.squeeze(1))
        return scores.softmax(1).transpose(1, 2)


@final
class SeqPoolHead(Head):
    """Classifies one sequence-pooled vector per branch."""

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.pooling = SequencePool(heads, width)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        return self.pooling(tokens)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        return self.pooling.token_weights(tokens)
