"""The `abmilp` head: attention-based multiple-instance pooling (arXiv 1802.04712; as a probe 2412.03215).

Legend: b images, n tokens, p = b n, d width, k branches.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.stacked import StackedLinear


@final
class AbmilpHead(Head):
    """a = softmax_N(MLP(x)), z = sum_n a_n x_n: `seqpool` whose scores are an MLP's.

    Args:
        width: D.
        num_classes: C.
        heads: K.
        tokens: N; any other number works too.
        depth: linear layers of the MLP, with tanh between them; 1 is `seqpool`.
    """

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, depth: int = 2) -> None:
        super().__init__(width, num_classes, heads, tokens)
        if depth < 1:
            raise ValueError(f"depth={depth}: expected an integer >= 1")
        self.layers = nn.ModuleList(StackedLinear(heads, width, width) for _ in range(depth - 1))
        self.score = StackedLinear(heads, width, 1)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        return torch.bmm(self.token_weights(tokens).to(tokens.dtype), tokens)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the weights a."""
        hidden = tokens.flatten(0, 1).unsqueeze(1).expand(-1, self.heads, -1)
        for layer in self.layers:
            hidden = layer(hidden).tanh()
        scores = self.score(hidden).squeeze(-1).unflatten(0, (-1, tokens.shape[1]))
        return scores.softmax(1, dtype=torch.promote_types(scores.dtype, torch.float32)).transpose(1, 2)
