"""The MLP of a transformer block, per branch.

Legend: b images, k branches, d width.
"""

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.layers.stacked import StackedLinear

EXPANSION = 4  # hidden width over D


@final
class StackedMlp(nn.Module):
    """Linear D -> 4D, GELU, linear 4D -> D."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.fc1 = StackedLinear(heads, width, EXPANSION * width)
        self.fc2 = StackedLinear(heads, EXPANSION * width, width)

    def forward(self, x: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        return self.fc2(F.gelu(self.fc1(x)))
