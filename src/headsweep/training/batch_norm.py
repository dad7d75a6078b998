"""Batch normalisation over the whole batch when it is split over ranks.

torch's SyncBatchNorm is for CUDA, and for torch's own layers.
"""

# b images, c channels

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headsweep.training.ranks import Ranks


def normalise_over_all(model: nn.Module, ranks: Ranks) -> None:
    """Let the layers of `model` with running statistics normalise by the statistics of all ranks."""
    if ranks.count == 1:
        return
    for module in model.modules():
        if "running_mean" in dict(module.named_buffers(recurse=False)):
            # Not part of a compiled graph: it is a collective operation.
            module.forward = torch.compiler.disable(_within(_OverAll(ranks), module.forward))


def _within(mode: TorchFunctionMode, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*arguments: Tensor) -> Tensor:
        with mode:
            return forward(*arguments)

    return call


class _OverAll(TorchFunctionMode):
    """Replaces torch's batch_norm, which all such layers call: those of headsweep, torch and timm."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (self._normalise if func is F.batch_norm else func)(*args, **(kwargs or {}))

    def _normalise(
        self,
        images: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As `F.batch_norm`; images are (b c *)."""
        if not training:
            return F.batch_norm(images, running_mean, running_variance, weight, bias, False, momentum, eps)
        values = images.float()
        others = [axis for axis in range(values.dim()) if axis != 1]
        mean = self._mean(values.mean(others, keepdim=True))
        centred = values - mean
        variance = self._mean(centred.square().mean(others, keepdim=True))
        with torch.no_grad():
            count = values.numel() // values.shape[1] * self._ranks.count
            running_mean.lerp_(mean.flatten(), momentum)
            running_variance.lerp_(variance.flatten() * (count / (count - 1)), momentum)
        normalised = centred * (variance + eps).rsqrt()
        if weight is not None and bias is not None:
            normalised = normalised * weight.view(mean.shape) + bias.view(mean.shape)
        return normalised.to(images.dtype)

    def _mean(self, values: Tensor) -> Tensor:
        """Average over the ranks, whose shares have equal size."""
        return _Sum.apply(values, self._ranks) / self._ranks.count


class _Sum(torch.autograd.Function):
    """A sum over ranks, differentiable: each rank's term changes the loss of all."""

    @staticmethod
    def forward(context: Any, values: Tensor, ranks: Ranks) -> Tensor:
        context.ranks = ranks
        return ranks.sum(values.clone())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return context.ranks.sum(gradient.clone()), None
