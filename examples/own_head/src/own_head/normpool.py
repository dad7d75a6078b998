"""The `normpool` head: tokens of a large norm count more, by a sharpness that each branch learns."""

import torch
from torch import Tensor, nn

from headsweep.heads import Head


class NormPoolHead(Head):
    """w_kn = softmax_n(s_k |x_n|), z_k = sum_n w_kn x_n; s has the branch as its first axis."""

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, sharpness: float = 1.0) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.sharpness = nn.Parameter(torch.full((heads, 1), sharpness))

    def token_weights(self, tokens: Tensor) -> Tensor:  # (b, n, d) to (b, k, n)
        return (self.sharpness * tokens.norm(dim=2).unsqueeze(1)).softmax(2)

    def pool(self, tokens: Tensor) -> Tensor:  # (b, n, d) to (b, k, d)
        return self.token_weights(tokens) @ tokens
