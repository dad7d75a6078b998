"""Layers of K branches as one set of parameters, whose first axis is the branch.

Legend: b images, k branches, i and o features in and out, g groups, d width, c channels, kc = k c of them.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.func import functional_call


def stacked_linear(
    x: Float[Tensor, "b k i"], weight: Float[Tensor, "k o i"], bias: Float[Tensor, "k o"] | None = None
) -> Float[Tensor, "b k o"]:
    """Apply one linear map per branch as a single batched product, on strided views without copies."""
    by_branch, transposed = x.transpose(0, 1), weight.transpose(1, 2)
    if bias is None:
        return torch.bmm(by_branch, transposed).transpose(0, 1)
    return torch.baddbmm(bias.unsqueeze(1), by_branch, transposed).transpose(0, 1)


class StackedLinear(nn.Module):
    """K linear layers, initialised as in CCT: truncated normal of standard deviation 0.02, zero bias."""

    def __init__(self, heads: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(heads, out_features))
        trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "b k i"]) -> Float[Tensor, "b k o"]:
        """Branch k of the input through layer k."""
        return stacked_linear(x, self.weight, self.bias)


class StackedGroupedLinear(nn.Module):
    """K grouped 1x1 convolutions of single vectors, initialised as PyTorch's with the fan-in of one branch.

    Args:
        heads: K.
        groups: groups of one branch.
        in_features: features in of one branch, over all groups.
        out_features: features out of one branch, over all groups.
    """

    def __init__(self, heads: int, groups: int, in_features: int, out_features: int) -> None:
        super().__init__()
        if in_features % groups or out_features % groups:
            raise ValueError(f"{in_features} features to {out_features}: expected multiples of groups={groups}")
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
        self.width = width  # an int, also for exporters that trace shapes
        self.weight = nn.Parameter(torch.ones(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads, width))

    def forward(self, x: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        """Normalise each vector and apply its branch's gain and bias."""
        return F.layer_norm(x, (self.width,)) * self.weight + self.bias


class StackedBatchNorm(nn.BatchNorm2d):
    """K batch normalisations over the images (and positions) of the batch, per branch and channel.

    A BatchNorm2d, so that what freezes or converts these in a model (timm's `freeze`, torch's `convert_sync_batchnorm`)
    finds it; call it by `normalise_branches`, which takes the layer that such a utility leaves in its place, too.
    """

    def __init__(self, heads: int, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(heads * channels, eps, affine=affine)
        if affine:
            self.weight = nn.Parameter(torch.ones(heads, channels))
            self.bias = nn.Parameter(torch.zeros(heads, channels))
        self.running_mean, self.running_var = torch.zeros(heads, channels), torch.ones(heads, channels)
        # Only a cumulative mean (`momentum=None`) uses it, so it is not in the state dict.
        self.register_buffer("num_batches_tracked", torch.tensor(0, device="cpu"), persistent=False)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Load as a plain module does: torch's batch norm adds a batch count to state dicts without one."""
        nn.Module._load_from_state_dict(self, *arguments)

    def forward(self, x: Float[Tensor, "b kc *n"]) -> Float[Tensor, "b kc *n"]:
        """Normalise channels that are ordered branch by branch on the second axis."""
        mean, variance = self.running_mean, self.running_var
        if mean is not None and variance is not None:  # `torch.func.replace_all_batch_norm_modules_` removes them
            mean, variance = mean.view(-1), variance.view(-1)
        weight = bias = None
        if self.affine:
            weight, bias = self.weight.view(-1), self.bias.view(-1)
        elif mean is not None and torch.onnx.is_in_onnx_export():  # the TorchScript exporter has no norm without them
            weight, bias = torch.ones_like(mean), torch.zeros_like(mean)
        batch = self.training or mean is None
        return F.batch_norm(x, mean, variance, weight, bias, batch, self._momentum(), self.eps)

    def _momentum(self) -> float:
        """Return the weight of this batch in the running statistics; without a momentum, equal for all batches."""
        if self.momentum is not None:
            return self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            return 1 / float(self.num_batches_tracked)
        return 0.0


def uses_batch_statistics(norm: nn.Module) -> bool:
    """Return whether this is a StackedBatchNorm that takes mean and deviation from the batch."""
    return isinstance(norm, StackedBatchNorm) and (norm.training or norm.running_mean is None)


def normalise_branches(norm: nn.Module, x: Float[Tensor, "b kc *n"]) -> Float[Tensor, "b kc *n"]:
    """Normalise channels ordered branch by branch, by a StackedBatchNorm or the layer a utility converted it to.

    Such a layer (`SyncBatchNorm`, `FrozenBatchNorm2d`) has tensors of shape (k c) but needs them flat, and may accept
    only images.
    """
    if isinstance(norm, StackedBatchNorm):
        return norm(x)
    tensors = (*norm.named_parameters(), *norm.named_buffers())
    flat = {name: tensor.view(-1) for name, tensor in tensors if tensor.ndim == 2}
    return functional_call(norm, flat, x.flatten(2).unsqueeze(-1) if x.ndim > 2 else x[..., None, None]).view_as(x)


def drop_converted_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: dict[str, Any]) -> None:
    """Restore the names of the unconverted layers in a state dict: for `register_state_dict_post_hook`."""
    for name in _converted_keys(module):
        state.pop(prefix + name, None)


def add_converted_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Add what converted layers expect: for `register_load_state_dict_pre_hook`."""
    for name, value in _converted_keys(module).items():
        state.setdefault(prefix + name, value)


def _converted_keys(module: nn.Module) -> dict[str, Tensor]:
    """Return what converted layers among the children of a module have and its StackedBatchNorms lack.

    All that a StackedBatchNorm has, and so all that they keep of it, has the branch as its first axis.
    """
    children = {name: child for name, child in module.named_children() if not isinstance(child, StackedBatchNorm)}
    tensors = (
        (f"{name}.{key}", value) for name, child in children.items() for key, value in child.state_dict().items()
    )
    return {name: value for name, value in tensors if value.ndim < 2}
