"""The gram query of `ga` and `sg`: a vector made of the tokens' Gram matrix (Gramian attention, ICCV 2023, section 3).

Legend: b images, n tokens, d width, k branches, c gram channels (G), kc = k c of them, m = b k matrices, s = G^2,
t = G (G + 1) / 2 entries of the triangle.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from headsweep.heads.stacked import StackedBatchNorm, StackedGroupedLinear

GROUPS = 8  # of both 1x1 convolutions


@final
class GramQuery(nn.Module):
    """Upper triangle of the Gram matrix of contracted tokens, L2-normalised and embedded, per branch.

    The Gram matrix sums over tokens, so any number of them works and their grid is not needed.
    """

    triangle: Tensor
    symmetric: Tensor

    def __init__(self, heads: int, width: int, gram_dim: int) -> None:
        super().__init__()
        self.heads = heads
        if gram_dim < 16 or gram_dim % 16:
            raise ValueError(f"gram_dim={gram_dim}: want a multiple of 16 (both 1x1 convolutions have 8 groups)")
        entries = gram_dim * (gram_dim + 1) // 2
        self.contraction = StackedGroupedLinear(heads, GROUPS, width, gram_dim)
        self.contraction_norm = StackedBatchNorm(heads, gram_dim)
        self.embedding = StackedGroupedLinear(heads, GROUPS, entries, width)
        self.embedding_norm = StackedBatchNorm(heads, width)
        triangle, symmetric = _triangle_indices(gram_dim)
        self.register_buffer("triangle", triangle, persistent=False)
        self.register_buffer("symmetric", symmetric, persistent=False)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """One query per branch."""
        gram = _gram_vectors(self._features(tokens), self.triangle, self.symmetric)
        grouped = gram.unflatten(1, (GROUPS, -1)).unflatten(0, (-1, self.heads))
        return self.embedding_norm(self.embedding(grouped).flatten(1)).unflatten(-1, (self.heads, -1))

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k n"]:
        """How much of the length of the Gram vector g is of each token: (g_n . g) / (g . g), g being the sum of g_n.

        g_n is the triangle of f_n f_n^T, so that 2 g_n . g = f_n^T (G + diag G) f_n, which is never negative.
        """
        features = self._features(tokens)
        gram = torch.bmm(features, features.transpose(1, 2))
        doubled = gram + gram.diagonal(dim1=1, dim2=2).diag_embed()
        shares = (features * torch.bmm(doubled, features)).sum(1)
        return F.normalize(shares, p=1, dim=-1).unflatten(0, (-1, self.heads))

    def _features(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "m c n"]:
        """The contracted tokens of each branch and image."""
        return self.contraction_norm(self._contract(tokens)).unflatten(1, (self.heads, -1)).flatten(0, 1)

    def _contract(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b kc n"]:
        """The first 1x1 convolution: one product per group, over all branches and images at once."""
        batch, count, _ = tokens.shape
        weight = self.contraction.weight.transpose(0, 1)
        bias = self.contraction.bias.unflatten(1, (GROUPS, -1)).transpose(0, 1)
        grouped = tokens.reshape(batch * count, GROUPS, -1).permute(1, 2, 0)
        out = torch.baddbmm(bias.flatten(1).unsqueeze(-1), weight.flatten(1, 2), grouped)
        return out.view(GROUPS, self.heads, -1, batch, count).permute(3, 1, 0, 2, 4).flatten(1, 3)


class GramTriangle(torch.autograd.Function):
    """Upper triangle of f f^T in row order; by hand because the matrix is symmetric.

    The gradient of f is (U + U^T) f, U being the gradient of the triangle: one product where autograd has two, and a
    gather where it has a scatter. It computes in float32 at least, and keeps f as it is given: under autocast in half
    the memory.
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
        exact = _exact(features)
        return torch.bmm(exact, exact.transpose(1, 2)).flatten(1)[:, triangle]

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "m t"]) -> tuple[Tensor, None, None]:
        """Spread the triangle's gradient over both halves; the diagonal counts twice."""
        features, symmetric = ctx.saved_tensors
        channels = features.shape[1]
        full = gradient[:, symmetric].view(-1, channels, channels)
        full.diagonal(dim1=1, dim2=2).mul_(2)
        return torch.bmm(full, _exact(features)).to(features.dtype), None, None


def _exact(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


@torch.fx.wrap  # FX traces neither autocast nor an autograd function
def _gram_vectors(
    features: Float[Tensor, "m c n"], triangle: Int[Tensor, " t"], symmetric: Int[Tensor, " s"]
) -> Float[Tensor, "m t"]:
    """L2-normalised triangles of the Gram matrices, in float32 under autocast too."""
    with _full_precision(features.device):
        return F.normalize(GramTriangle.apply(features, triangle, symmetric))


def _triangle_indices(size: int) -> tuple[Int[Tensor, " t"], Int[Tensor, " s"]]:
    """Where the triangle's entries lie in the flat matrix, and the entry of each place of the matrix."""
    rows, columns = torch.triu_indices(size, size)
    symmetric = torch.empty(size, size, dtype=torch.long)
    symmetric[rows, columns] = symmetric[columns, rows] = torch.arange(len(rows), device=rows.device)
    return rows * size + columns, symmetric.flatten()


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast off; the meta device has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
