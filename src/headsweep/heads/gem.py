"""The `gem` head: generalised-mean pooling (arXiv 1711.02512, section 3.2).

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.base import Head

LEAST = 1e-6  # features below it count as it
POWER = 3.0  # initially


@final
class GemHead(Head):
    """z = (mean_N max(x, 1e-6)^p)^(1/p) of each feature, with a learned power p per branch, at first 3."""

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.power = nn.Parameter(torch.full((heads, 1), POWER))

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        scaled, largest = self._scaled(tokens)
        means = scaled.pow(self.power.unsqueeze(-1)).mean(2)
        return (means.pow(1 / self.power) * largest).to(tokens.dtype)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return each token's share of the sum of powers: the mean over features."""
        powers = self._scaled(tokens)[0].pow(self.power.unsqueeze(-1))
        return (powers / powers.sum(2, keepdim=True)).mean(3)

    def _scaled(self, tokens: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b 1 n d"], Float[Tensor, "b 1 d"]]:
        """Return the tokens over the largest of each feature, so that no power is out of range, and the largest.

        The pooled vector does not depend on what they are divided by, nor does its gradient.
        """
        positive = tokens.to(torch.promote_types(tokens.dtype, torch.float32)).clamp_min(LEAST)
        largest = positive.detach().amax(1, keepdim=True)
        return (positive / largest).unsqueeze(1), largest
