"""Class attention with one query per branch (CaiT's, with LayerScale, as in the Gramian attention paper).

With a single query no key or value of a token need ever be formed (docs/heads.md): for branch k and attention head h

    score_n = q . (W_k u_n) = (W_k^T q) . u_n        sum_n a_n (W_v u_n) = W_v (sum_n a_n u_n)

so all K x H queries meet the tokens in one product and one weighted sum, and the layer-normalised tokens are shared by
all branches: the norm's gain folds into W; its bias is the same for every token, so it leaves the softmax of the keys
alone and adds W_v bias to the values, whose weights sum to one. Its centring folds into W too, so that what is left of
the norm is one number a token (`softmax_pool`).

Legend: b images, n tokens, d width, k branches, h attention heads of a branch, j = k h, e = d / 4, f = e / h,
p = 3 e.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.heads.layers.softmax_pool import softmax_pool
from headsweep.heads.layers.stacked import StackedGroupedLinear, StackedLayerNorm, StackedLinear, stacked_linear

torch.fx.wrap("softmax_pool")  # FX cannot trace autocast or an autograd function

ATTENTION_HEADS = 8
EXPANSION = 4  # ratio of D to the width of queries, keys and values, and of the MLP's hidden width to D
MLP_GROUPS = 2
LAYER_SCALE = 1e-4


class ShuffleMlp(nn.Module):
    """Grouped 1x1 convolution D -> 4D, GELU, channel shuffle, grouped 1x1 convolution 4D -> D, per branch."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.fc1 = StackedGroupedLinear(heads, MLP_GROUPS, width, EXPANSION * width)
        self.fc2 = StackedGroupedLinear(heads, MLP_GROUPS, EXPANSION * width, width)

    def forward(self, x: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        """Apply the MLP of each branch to its own vector."""
        hidden = F.gelu(self.fc1(x.unflatten(-1, (MLP_GROUPS, -1))))
        # Views the 4D channels as (2D, 2), transposes and flattens: every second channel goes to the other group.
        shuffled = hidden.unflatten(-1, (-1, MLP_GROUPS)).permute(0, 1, 4, 2, 3).flatten(-2)
        return self.fc2(shuffled).flatten(-2)


class ClassAttention(nn.Module):
    """The class-attention block: a query per branch attends to itself and to the tokens, then passes an MLP.

    Args:
        heads: K, the number of branches.
        width: D, a multiple of 32.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        if width % (EXPANSION * ATTENTION_HEADS):
            raise ValueError(f"width={width}: expected a multiple of {EXPANSION * ATTENTION_HEADS}")
        inner = width // EXPANSION
        self.width, self.scale = width, (inner // ATTENTION_HEADS) ** -0.5
        self.norm1 = StackedLayerNorm(heads, width)
        self.qkv = nn.Parameter(torch.empty(heads, 3 * inner, width))
        self.proj = StackedLinear(heads, inner, width)
        self.norm2 = StackedLayerNorm(heads, width)
        self.mlp = ShuffleMlp(heads, width)
        self.gamma_1 = nn.Parameter(torch.full((heads, width), LAYER_SCALE))
        self.gamma_2 = nn.Parameter(torch.full((heads, width), LAYER_SCALE))
        trunc_normal_(self.qkv, std=0.02)

    def forward(self, query: Float[Tensor, "b k d"], tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return the refined query of each branch."""
        query = query + self.gamma_1 * self._attend(query, tokens)
        return query + self.gamma_2 * self.mlp(self.norm2(query))

    def token_weights(self, query: Float[Tensor, "b k d"], tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return the attention weight of each token: mean over attention heads, without the query's own share.

        From logarithms, so that there is a row even where a query spends all but nothing on the tokens.
        """
        queries, own_score, _ = self._queries(query, *self._projections())
        scores = torch.bmm(queries, F.layer_norm(tokens, (self.width,)).transpose(1, 2))
        shares = torch.cat([scores, own_score], -1).log_softmax(-1)[..., :-1].unflatten(1, (-1, ATTENTION_HEADS))
        return shares.logsumexp(2).softmax(-1)

    def _attend(self, query: Float[Tensor, "b k d"], tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Attend from each query to itself and all tokens, without forming keys and values of tokens."""
        weight, bias = self._projections()
        queries, own_score, own_value = self._queries(query, weight, bias)
        sums, log_sum = softmax_pool(queries, tokens, scaled=True)
        weight_v = weight.unflatten(1, (3, ATTENTION_HEADS, -1))[:, 2]
        values = stacked_linear(sums, weight_v.flatten(0, 1))
        values = values + (own_score - log_sum).sigmoid() * (own_value - values)
        found = _by_branch(values, query.shape[1]) + bias.chunk(3, 1)[2]
        return self.proj(found.to(self.proj.weight.dtype))  # the logarithms are float32 at least

    def _projections(self) -> tuple[Float[Tensor, "k p d"], Float[Tensor, "k p"]]:
        """Return weight and bias of queries, keys and values, with the norm's gain, centring and bias folded in.

        They are for vectors of deviation 1, centred or not: the rows of the weight are centred instead.
        """
        weight = self.qkv * self.norm1.weight.unsqueeze(1)
        bias = torch.bmm(self.qkv, self.norm1.bias.unsqueeze(-1)).squeeze(-1)
        return weight - weight.mean(-1, keepdim=True), bias

    def _queries(
        self, query: Float[Tensor, "b k d"], weight: Float[Tensor, "k p d"], bias: Float[Tensor, "k p"]
    ) -> tuple[Float[Tensor, "b j d"], Float[Tensor, "b j 1"], Float[Tensor, "b j f"]]:
        """Return the vectors whose products with tokens are the scores, and the query's own score and value."""
        weight_k = weight.unflatten(1, (3, ATTENTION_HEADS, -1))[:, 1]
        q, own_key, own_value = stacked_linear(F.layer_norm(query, (self.width,)), weight).chunk(3, -1)
        q = (q + bias.chunk(3, 1)[0]) * self.scale
        q, own_key, own_value = (_by_attention_head(y) for y in (q, own_key, own_value))
        queries = stacked_linear(q, weight_k.flatten(0, 1).transpose(1, 2))
        return queries, (q * own_key).sum(-1, keepdim=True), own_value


def _by_attention_head(x: Float[Tensor, "b k e"]) -> Float[Tensor, "b j f"]:
    return x.unflatten(-1, (ATTENTION_HEADS, -1)).flatten(1, 2)


def _by_branch(x: Float[Tensor, "b j f"], heads: int) -> Float[Tensor, "b k e"]:
    return x.unflatten(1, (heads, ATTENTION_HEADS)).flatten(-2)
