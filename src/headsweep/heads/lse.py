"""The `lse` head: log-sum-exp pooling (arXiv 1411.6228, section 3.2), between the mean and the maximum.

Legend: b images, n tokens, d width, k branches.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head


@final
class LseHead(Head):
    """z = log(mean_N exp(r x)) / r of each feature; branches share it and differ in their classifiers alone.

    Args:
        width: D.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        sharpness: r; the mean for r -> 0, the maximum for r -> infinity.
    """

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, sharpness: float = 5.0) -> None:
        super().__init__(width, num_classes, heads, tokens)
        if not 0 < sharpness < math.inf:
            raise ValueError(f"sharpness={sharpness}: expected a number > 0")
        self.sharpness = sharpness

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return the pooled vector, once per branch; nothing is larger than the exponential of 0."""
        exact = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        largest = exact.detach().amax(1, keepdim=True)
        log_means = ((exact - largest) * self.sharpness).exp().mean(1, keepdim=True).log()
        return (largest + log_means / self.sharpness).to(tokens.dtype).expand(-1, self.heads, -1)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return each token's share of the sum of exponentials: the mean over features."""
        return (tokens * self.sharpness).softmax(1).mean(2).unsqueeze(1).expand(-1, self.heads, -1)
