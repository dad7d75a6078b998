"""The `se` head: squeeze-and-excitation over the tokens (the SeqAttention paper's code, models/se_cct.py).

Legend: b images, n tokens, d width, k branches.
"""

from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.stacked import StackedLinear

REDUCTION = 16  # N over the hidden width


@final
class SqueezeExcitePool(nn.Module):
    """s = mean_D x, g = sigmoid(W2 relu(W1 s)), z = mean_N(g_n x_n), with W1 and W2 (and biases) per branch."""

    def __init__(self, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads, self.tokens = heads, tokens
        hidden = max(1, tokens // REDUCTION)
        self.fc1 = StackedLinear(heads, tokens, hidden)
        self.fc2 = StackedLinear(heads, hidden, tokens)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return one gated mean of the tokens per branch."""
        return torch.bmm(self.gates(tokens), tokens) / self.tokens

    def gates(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the gates of each branch, in (0, 1)."""
        squeezed = tokens.mean(2).unsqueeze(1).expand(-1, self.heads, -1)
        return self.fc2(F.relu(self.fc1(squeezed))).sigmoid()


@final
class SeHead(Head):
    """Classifies one gated mean of the tokens per branch."""

    fixed_tokens: ClassVar[bool] = True

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.pooling = SqueezeExcitePool(heads, tokens)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        self.check_tokens("se", tokens)
        return self.pooling(tokens)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the gates over their sum."""
        self.check_tokens("se", tokens)
        return F.normalize(self.pooling.gates(tokens), p=1, dim=-1)
