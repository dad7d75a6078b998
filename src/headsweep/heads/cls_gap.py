"""The `cls_gap` head: class token and mean patch token, the input of DINOv2's linear probe (arXiv 2304.07193).

Legend: b images, n patch tokens, t = 1 + n, d width, e = 2 d, k branches.
"""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head


@final
class ClsGapHead(Head):
    """Branches share the concatenated vectors and differ in their classifiers alone."""

    class_token: ClassVar[bool] = True

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int) -> None:
        super().__init__(width, num_classes, heads, tokens, pooled_width=2 * width)

    def pool(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b k e"]:
        """Return the class token and the mean of the patch tokens, once per branch."""
        both = torch.cat([tokens[:, :1], tokens[:, 1:].mean(1, keepdim=True)], -1)
        return both.expand(-1, self.heads, -1)

    def token_weights(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b k n"]:
        """Return 1/N for each patch token."""
        batch, count, _ = tokens[:, 1:].shape
        return tokens.new_full((batch, self.heads, count), 1 / count)
