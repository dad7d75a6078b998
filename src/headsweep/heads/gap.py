"""The `gap` head: mean over the tokens (GAP-FC, the baseline of Table 2 of the Gramian attention paper).

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head


@final
class GapHead(Head):
    """Branches share the mean token and differ in their classifiers alone."""

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return the mean token, once per branch."""
        return tokens.mean(1, keepdim=True).expand(-1, self.heads, -1)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return 1/N for each token."""
        batch, count, _ = tokens.shape
        return tokens.new_full((batch, self.heads, count), 1 / count)
