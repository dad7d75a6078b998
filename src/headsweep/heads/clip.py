"""The `clip` head: attention pooling of CLIP's ResNets (arXiv 2103.00020): the mean token is the query.

Legend: b images, n tokens, l = 1 + n, d width, k branches, h attention heads of a branch, j = k h queries of an image.
"""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.base import Head
from headsweep.heads.layers.cross_attention import check_attention_heads, project_queries, project_values
from headsweep.heads.layers.stacked import StackedLinear, stacked_linear


@final
class ClipHead(Head):
    """The mean token, then all tokens, each with its position, are read by attention whose only query is the mean's.

    The share of the mean token is an equal share of each token, so the sequence need not be formed; positions add a
    term to the scores and to the sums.

    Args:
        width: D, a multiple of attention_heads.
        num_classes: C.
        heads: K.
        tokens: N.
        attention_heads: of one branch.
    """

    fixed_tokens: ClassVar[bool] = True

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, attention_heads: int = 8) -> None:
        super().__init__(width, num_classes, heads, tokens)
        check_attention_heads(width, attention_heads)
        self.attention_heads = attention_heads
        self.positions = nn.Parameter(torch.empty(heads, 1 + tokens, width))
        self.query = StackedLinear(heads, width, width)
        self.key = StackedLinear(heads, width, width)
        self.value = StackedLinear(heads, width, width)
        self.proj = StackedLinear(heads, width, width)
        trunc_normal_(self.positions, std=0.02)

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        shares = self._shares(tokens)
        positions = self._each_head(shares, self.positions.transpose(1, 2))
        sums = torch.bmm(_of_tokens(shares), tokens.to(shares.dtype)) + positions
        return self.proj(project_values(sums, self.value.weight, self.attention_heads) + self.value.bias)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the mean over attention heads of the weights, with that of the mean token."""
        return _of_tokens(self._shares(tokens)).unflatten(1, (self.heads, -1)).mean(2)

    def _shares(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b j l"]:
        """Return the attention weights, of the mean token first."""
        self.check_tokens("clip", tokens)
        query = self.query(tokens.mean(1, keepdim=True) + self.positions[:, 0])
        queries, bias = project_queries(query, (self.key.weight, self.key.bias), self.attention_heads)
        scores = torch.bmm(queries, tokens.to(queries.dtype).transpose(1, 2))
        scores = torch.cat([scores.mean(-1, keepdim=True), scores], -1) + self._each_head(queries, self.positions)
        precise = (scores + bias).softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        return precise.to(scores.dtype)

    def _each_head(self, x: Float[Tensor, "b j i"], weight: Float[Tensor, "k o i"]) -> Float[Tensor, "b j o"]:
        """Apply the map of a branch to the vectors of all its attention heads."""
        by_branch = x.unflatten(1, (self.heads, -1)).transpose(1, 2)
        mapped = stacked_linear(by_branch.flatten(0, 1), weight).unflatten(0, (-1, self.attention_heads))
        return mapped.transpose(1, 2).flatten(1, 2)


def _of_tokens(shares: Float[Tensor, "b j l"]) -> Float[Tensor, "b j n"]:
    """Return the share of each token: its own, and an equal part of the mean token's."""
    own = shares[..., 1:]
    return own + shares[..., :1] / own.shape[-1]
