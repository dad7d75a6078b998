"""Autocast, `torch.func` and exporters in hand-written operations."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of a product of this tensor under autocast, which does not change float64."""
    device = x.device.type
    if device == "meta" or x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off where it is on: a program of torch.export cannot be stored with a context that it enters."""
    is_on = device.type != "meta" and torch.is_autocast_enabled(device.type)  # the meta device has none
    return torch.autocast(device.type, enabled=False) if is_on else nullcontext()


def differentiates_by_hand() -> bool:
    """Return whether hand-written gradients, in an autograd function, are used.

    `torch.func` cannot transform such a function (vmap, forward mode, second derivatives), and the TorchScript exporter
    gets the shapes of its results wrong. Both are given the plain operations of its forward pass instead.
    """
    return not (torch._C._are_functorch_transforms_active() or torch.onnx.is_in_onnx_export())


def in_product_dtype(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Return tokens in the dtype of products, for several readers: rounded once, as the sum of their gradients is."""
    dtype = product_dtype(tokens)
    if dtype == tokens.dtype or not differentiates_by_hand():
        return tokens.to(dtype)
    return Rounded.apply(tokens, dtype)


class Rounded(torch.autograd.Function):
    """Conversion whose gradient is stored in the other dtype before it is converted back."""

    @staticmethod
    def forward(ctx: Any, tokens: Float[Tensor, "b n d"], dtype: torch.dtype) -> Float[Tensor, "b n d"]:
        """Round the tokens."""
        ctx.dtype = tokens.dtype
        return tokens.to(dtype)

    @staticmethod
    def backward(ctx: Any, by: Float[Tensor, "b n d"]) -> tuple[Tensor, None]:
        """Convert the gradient back; without the strided view, the compiler would store the sum in float32."""
        return by.as_strided(by.shape, by.stride()).to(ctx.dtype), None
