"""The gram query of `ga` and `sg`: a vector made from the tokens' Gram matrix (Gramian attention, section 3).

Legend: b images, n tokens, d width, k branches, c gram channels (G), kc = k c of them, m = b k matrices, s = G^2,
t = G (G + 1) / 2 entries of the triangle.
"""

from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from headsweep.heads.layers.buffers import derive_after_loading
from headsweep.heads.layers.precision import differentiates_by_hand, full_precision
from headsweep.heads.layers.stacked import (
    StackedBatchNorm,
    StackedGroupedLinear,
    add_converted_keys,
    drop_converted_keys,
    normalise_branches,
    uses_batch_statistics,
)

GROUPS = 8  # of both 1x1 convolutions
ROUNDS_RESULTS = "dtype" not in torch.ops.aten.bmm.overloads()  # before torch 2.8: products in bfloat16 return bfloat16


@final
class GramQuery(nn.Module):
    """Upper triangle of the Gram matrix of contracted tokens, L2-normalised and embedded, per branch.

    The Gram matrix sums over tokens, so any number of them works and their grid is not needed.
    """

    triangle: Tensor
    symmetric: Tensor

    def __init__(self, heads: int, width: int, gram_dim: int) -> None:
        super().__init__()
        self.heads, self.gram_dim = heads, gram_dim
        if gram_dim < 16 or gram_dim % 16:
            raise ValueError(f"gram_dim={gram_dim}: expected a multiple of 16 (both 1x1 convolutions have 8 groups)")
        entries = gram_dim * (gram_dim + 1) // 2
        self.contraction = StackedGroupedLinear(heads, GROUPS, width, gram_dim)
        self.contraction_norm = StackedBatchNorm(heads, gram_dim)
        self.embedding = StackedGroupedLinear(heads, GROUPS, entries, width)
        self.embedding_norm = StackedBatchNorm(heads, width)
        for name, indices in self.derived_buffers().items():
            self.register_buffer(name, indices, persistent=False)
        self.register_state_dict_post_hook(drop_converted_keys)
        self.register_load_state_dict_pre_hook(add_converted_keys)
        derive_after_loading(self)

    def derived_buffers(self) -> dict[str, Tensor]:
        """Return the flat indices of the triangle's entries, and for each element of the matrix its entry."""
        return dict(zip(("triangle", "symmetric"), _triangle_indices(self.gram_dim), strict=True))

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return one query per branch."""
        gram = _gram_vectors(self._features(tokens), self.triangle, self.symmetric)
        grouped = gram.to(self.embedding.weight.dtype).unflatten(1, (GROUPS, -1)).unflatten(0, (-1, self.heads))
        embedded = self.embedding(grouped).flatten(1)
        return normalise_branches(self.embedding_norm, embedded).unflatten(-1, (self.heads, -1))

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """Return each token's share of the squared length of the Gram vector g = sum_n g_n: (g_n . g) / (g . g).

        g_n is the triangle of f_n f_n^T, so that 2 g_n . g = f_n^T (G + diag G) f_n, which is never negative.
        """
        features = self._features(tokens)
        gram = torch.bmm(features, features.transpose(1, 2))
        doubled = gram + gram.diagonal(dim1=1, dim2=2).diag_embed()
        shares = (features * torch.bmm(doubled, features)).sum(1)
        return F.normalize(shares, p=1, dim=-1).unflatten(0, (-1, self.heads))

    def _features(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "m c n"]:
        """Return the contracted tokens of each branch and image."""
        contracted = normalise_branches(self.contraction_norm, self._contract(tokens))
        return contracted.unflatten(1, (self.heads, -1)).flatten(0, 1)

    def _contract(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b kc n"]:
        """Apply the first 1x1 convolution: one product per group, over all branches and images at once."""
        batch, count, width = tokens.shape
        weight = self.contraction.weight.transpose(0, 1)
        added = self.contraction.bias
        cancels = uses_batch_statistics(self.contraction_norm)
        bias = (_cancelled(added, tokens) if cancels else added).unflatten(1, (GROUPS, -1)).transpose(0, 1)
        grouped = tokens.reshape(batch * count, GROUPS, width // GROUPS).permute(1, 2, 0)
        out = torch.baddbmm(bias.flatten(1).unsqueeze(-1), weight.flatten(1, 2), grouped)
        return out.view(GROUPS, self.heads, weight.shape[2], batch, count).permute(3, 1, 0, 2, 4).flatten(1, 3)


@torch.fx.wrap  # FX cannot trace an autograd function
def _cancelled(bias: Float[Tensor, "k c"], tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "k c"]:
    return CancelledBias.apply(bias) if tokens.is_cuda and differentiates_by_hand() else bias


class CancelledBias(torch.autograd.Function):
    """A bias that the following batch norm cancels by subtracting the mean: its gradient is 0.

    As a sum over images and tokens, it would be made of rounding errors, and read the whole gradient of the product.
    """

    @staticmethod
    def forward(ctx: Any, bias: Float[Tensor, "k c"]) -> Float[Tensor, "k c"]:
        """Return it as it is: the running mean includes it."""
        return bias.view_as(bias)

    @staticmethod
    def backward(ctx: Any, by: Float[Tensor, "k c"]) -> Float[Tensor, "k c"]:
        """Return zeros, so that optimizers and ranks treat it as any other parameter."""
        return torch.zeros_like(by)


class GramTriangle(torch.autograd.Function):
    """Upper triangle of f f^T in row order; hand-written because the matrix is symmetric.

    The gradient of f is (U + U^T) f, U being the gradient of the triangle: one product where autograd has two, and a
    gather where it has a scatter. It computes in float32 at least, and keeps f as it is given: under autocast in half
    the memory. On a GPU, f in bfloat16 is multiplied as it is and summed in float32, without a copy in float32; of the
    gradient, U is rounded to bfloat16 first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Float[Tensor, "m c n"],
        triangle: Int[Tensor, " t"],
        symmetric: Int[Tensor, " s"],
    ) -> Float[Tensor, "m t"]:
        """Gather the triangle of each matrix."""
        ctx.save_for_backward(features, symmetric)
        if _multiplies_bfloat16(features):
            gram = torch.bmm(features, features.transpose(1, 2), out_dtype=torch.float32)
            return gram.flatten(1).index_select(1, triangle)
        return _triangle(features, triangle)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "m t"]) -> tuple[Tensor, None, None]:
        """Spread the triangle's gradient over both halves; the diagonal counts twice."""
        features, symmetric = ctx.saved_tensors
        channels = features.shape[1]
        if _multiplies_bfloat16(features):  # nothing in place: a compiler gathers, doubles and rounds in one kernel
            rounded = gradient.to(features.dtype).index_select(1, symmetric).view(-1, channels, channels)
            doubled = rounded * (1 + torch.eye(channels, dtype=features.dtype, device=features.device))
            return torch.bmm(doubled, features), None, None
        full = gradient.index_select(1, symmetric).view(-1, channels, channels)
        full.diagonal(dim1=1, dim2=2).mul_(2)
        return torch.bmm(full, _exact(features)).to(features.dtype), None, None


def _multiplies_bfloat16(features: Tensor) -> bool:
    return features.is_cuda and features.dtype == torch.bfloat16 and not ROUNDS_RESULTS


def _triangle(features: Float[Tensor, "m c n"], indices: Int[Tensor, " t"]) -> Float[Tensor, "m t"]:
    exact = _exact(features)
    return torch.bmm(exact, exact.transpose(1, 2)).flatten(1).index_select(1, indices)


def _exact(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


@torch.fx.wrap  # FX cannot trace autocast or an autograd function
def _gram_vectors(
    features: Float[Tensor, "m c n"], triangle: Int[Tensor, " t"], symmetric: Int[Tensor, " s"]
) -> Float[Tensor, "m t"]:
    """L2-normalised triangles of the Gram matrices, in float32 under autocast too."""
    with full_precision(features.device):
        if differentiates_by_hand():
            return F.normalize(GramTriangle.apply(features, triangle, symmetric))
        return F.normalize(_triangle(features, triangle))


def _triangle_indices(size: int) -> tuple[Int[Tensor, " t"], Int[Tensor, " s"]]:
    """Return the flat indices of the triangle's entries, and for each element of the matrix its entry."""
    rows, columns = torch.triu_indices(size, size)
    symmetric = torch.empty(size, size, dtype=torch.long)
    symmetric[rows, columns] = symmetric[columns, rows] = torch.arange(len(rows), device=rows.device)
    return rows * size + columns, symmetric.flatten()
