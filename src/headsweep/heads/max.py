"""The `max` head: the maximum over the tokens of each feature.

Legend: b images, n tokens, d width, k branches.
"""

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head


@final
class MaxHead(Head):
    """Branches share the maximum and differ in their classifiers alone."""

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return the maximum of each feature, once per branch."""
        return tokens.amax(1, keepdim=True).expand(-1, self.heads, -1)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the share of features of which a token has the maximum."""
        chosen = F.one_hot(tokens.argmax(1), tokens.shape[1]).to(tokens.dtype)
        return chosen.mean(1).unsqueeze(1).expand(-1, self.heads, -1)
