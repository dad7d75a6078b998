"""Layers of K branches as one set of parameters, whose first axis is the branch.

Legend: b images, k branches, i and o features in and out, g groups, d width, c channels, kc = k c of them.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn


def stacked_linear(
    x: Float[Tensor, "b k i"], weight: Float[Tensor, "k o i"], bias: Float[Tensor, "k o"] | None = None
) -> Float[Tensor, "b k o"]:
    """One linear map per branch, as a single batched product (strided views, no copies)."""
    by_branch, transposed = x.transpose(0, 1), weight.transpose(1, 2)
    if bias is None:
        return torch.bmm(by_branch, transposed).transpose(0, 1)
    return torch.baddbmm(bias.unsqueeze(1), by_branch, transposed).transpose(0, 1)


class StackedLinear(nn.Module):
    """K linear layers, drawn as CCT draws its own: truncated normal of deviation 0.02, zero bias."""

    def __init__(self, heads: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(heads, out_features))
        trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "b k i"]) -> Float[Tensor, "b k o"]:
        """Branch k of the input through layer k."""
        return stacked_linear(x, self.weight, self.bias)


class StackedGroupedLinear(nn.Module):
    """K grouped 1x1 convolutions of single vectors, drawn as PyTorch draws a convolution, with one branch's fan-in.

    Args:
        heads: K.
        groups: groups of one branch.
        in_features: features in of one branch, over all groups.
        out_features: features out of one branch, over all groups.
    """

    def __init__(self, heads: int, groups: int, in_features: int, out_features: int) -> None:
        super().__init__()
        if in_features % groups or out_features % groups:
            raise ValueError(f"{in_features} features to {out_features}: want multiples of groups={groups}")
        fan_in, fan_out = in_features // groups, out_features // groups
        bound = 1 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.empty(heads, groups, fan_out, fan_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads, groups * fan_out).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "b k g i"]) -> Float[Tensor, "b k g o"]:
        """Group g of branch k through its own matrix; all K x g products are one."""
        heads, groups, fan_out, _ = self.weight.shape
        bias = self.bias.view(heads * groups, fan_out)
        return stacked_linear(x.flatten(1, 2), self.weight.flatten(0, 1), bias).unflatten(1, (heads, groups))


class StackedLayerNorm(nn.Module):
    """K layer normalisations over the same width."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads, width))

    def forward(self, x: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        """Normalise each vector and apply its branch's gain and bias."""
        return F.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class StackedBatchNorm(nn.Module):
    """K batch normalisations over the images (and positions) of the batch, per branch and channel."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, channels))
        self.bias = nn.Parameter(torch.zeros(heads, channels))
        self.register_buffer("running_mean", torch.zeros(heads, channels))
        self.register_buffer("running_var", torch.ones(heads, channels))

    def forward(self, x: Float[Tensor, "b kc *n"]) -> Float[Tensor, "b kc *n"]:
        """Normalise channels that lie branch after branch on the second axis."""
        mean, variance = self.running_mean.view(-1), self.running_var.view(-1)
        return F.batch_norm(x, mean, variance, self.weight.view(-1), self.bias.view(-1), self.training)
