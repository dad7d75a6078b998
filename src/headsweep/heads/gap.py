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
        """The mean token, once per branch."""
        return tokens.mean(1, keepdim=True).expand(-1, self.heads, -1)
