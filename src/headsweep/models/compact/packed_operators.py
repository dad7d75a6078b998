"""The operators of torch that run the kernels of packed attention, with their gradient.

The compiler takes operators as they are. To register them takes a third of a second, for which torch looks through all
modules: this one is imported where a step needs it.

Legend: b images, n tokens, h attention heads, d channels of an attention head, o = 3 h d.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.models.compact.attention import levels

WIDE_CAPABILITIES = (9, 10)  # major ones, which have room for 32 keys at a time in the backward pass


def attend_packed(
    packed: Float[Tensor, "b n 3 h d"], dropout: float, added: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "b n h d"]:
    """`scaled_dot_product_attention` with masks of its own, at the nearest rate k / 2^16 below 1.

    `packed` already includes `added`, which gets the sum of its gradient over all tokens: that of a bias, detached from
    the product that added it. The kernel of the gradient sums what it writes, where the product's own gradient would
    read all of it again.
    """
    seed = torch.randint(1 << 62, (1,), device=packed.device)
    mixed: Tensor = _forward(packed, added, seed, dropout)[0]
    return mixed


@torch.library.custom_op("headsweep::packed_attention", mutates_args=())
def _forward(packed: Tensor, added: Tensor | None, seed: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
    """Return the mixed tokens, and the logarithm (to base 2) of the sum of each row of weights (b h n)."""
    from headsweep.kernels.attention import attend_forward

    packed = packed.contiguous()
    mixed, logsumexp = _outputs(packed)
    images, tokens, _, heads, width = packed.shape
    padded = _padded(tokens)
    attend_forward[(images * heads,)](
        packed, mixed, logsumexp, seed, heads, _scale(width) / math.log(2), *levels(dropout),
        TOKENS=tokens, D=width, N=padded, M=min(padded, 32), DROPOUT=dropout > 0,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return mixed, logsumexp


@torch.library.custom_op("headsweep::packed_attention_backward", mutates_args=())
def _backward(
    by_mixed: Tensor, packed: Tensor, mixed: Tensor, logsumexp: Tensor, seed: Tensor, dropout: float, summed: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradient of `packed`, and its sum over the tokens of each image if it is to be `summed`."""
    from headsweep.kernels.attention import attend_backward

    packed = packed.contiguous()
    by_packed, sums = _gradients(packed, summed)
    images, tokens, _, heads, width = packed.shape
    padded, (keys, stages) = _padded(tokens), _keys_and_stages(packed.device)
    scale = _scale(width)
    attend_backward[(images * heads,)](
        packed, mixed, by_mixed.contiguous(), logsumexp, by_packed, sums, seed, heads, scale / math.log(2), scale,
        *levels(dropout), TOKENS=tokens, D=width, N=padded, M=keys, DROPOUT=dropout > 0, SUMS=summed,
        num_warps=8 if padded > 64 else 4, num_stages=stages,
    )  # fmt: skip
    return by_packed, sums


@_forward.register_fake
def _(packed: Tensor, added: Tensor | None, seed: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
    return _outputs(packed)


@_backward.register_fake
def _(
    by_mixed: Tensor, packed: Tensor, mixed: Tensor, logsumexp: Tensor, seed: Tensor, dropout: float, summed: bool
) -> tuple[Tensor, Tensor]:
    return _gradients(packed, summed)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor | None, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    packed, added, seed, ctx.dropout = inputs
    ctx.summed = added is not None
    ctx.save_for_backward(packed, *output, seed)


def _differentiate(ctx: Any, by_mixed: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
    by_packed, sums = _backward(by_mixed, *ctx.saved_tensors, ctx.dropout, ctx.summed)
    return by_packed, sums.sum(0).flatten() if ctx.summed else None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _outputs(packed: Tensor) -> tuple[Tensor, Tensor]:
    images, tokens, _, heads, width = packed.shape
    logsumexp = packed.new_empty(images, heads, tokens, dtype=torch.float32)
    return packed.new_empty(images, tokens, heads, width), logsumexp


def _gradients(packed: Tensor, summed: bool) -> tuple[Tensor, Tensor]:
    images, _, *part = packed.shape
    sums = packed.new_empty(images if summed else 0, *part, dtype=torch.float32)
    return torch.empty_like(packed, memory_format=torch.contiguous_format), sums


def _padded(tokens: int) -> int:
    """Return the next power of two; products have at least 16 rows."""
    return max(16, 1 << (tokens - 1).bit_length())


def _scale(width: int) -> float:
    return width**-0.5


def _keys_and_stages(device: torch.device) -> tuple[int, int]:
    """Return keys at a time and stages of the backward kernel that spill fewest registers (benchmarks/NOTES.md)."""
    wide = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in WIDE_CAPABILITIES
    return (32, 2) if wide else (16, 1)
