"""Attention of a training step: torch's kernel, or plain operations for its dropout on a CPU.

With dropout torch has no fused kernel on a CPU. It writes the weights out, too, draws a number for each, and makes more
passes over them. Masks of four out of one draw, and scales of the smaller (n d) tensors, take 59 ms in the place of 78
(forward and backward, float32, 16 images, n = m = 256, 4 heads of 64, one thread), in bfloat16 25 in the place of 85.
"""

# b images, h attention heads, n queries, m keys, d width of an attention head

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from headsweep.heads.layers.precision import differentiates_by_hand

RATES = 1 << 16  # levels of a mask: a rate is exact to half of 1 / RATES


def attend(
    query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h m d"], value: Float[Tensor, "b h m d"], dropout: float
) -> Float[Tensor, "b h n d"]:
    """`scaled_dot_product_attention`; on a CPU with its own masks, at the nearest rate k / 2^16 below 1."""
    if dropout and query.device.type == "cpu":
        return _written_out(query, key, value, dropout)
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


def _written_out(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1)
    dropped, scale = levels(dropout)
    return weights * _kept(weights, dropped) @ (value * scale)


def levels(dropout: float) -> tuple[int, float]:
    """Return how many of RATES numbers drop a weight, and the scale of the others."""
    dropped = min(round(dropout * RATES), RATES - 1)
    return dropped, RATES / (RATES - dropped)


def _kept(weights: Float[Tensor, "b h n m"], dropped: int) -> Shaped[Tensor, "b h n m"]:
    """Draw 0 or False with probability `dropped` / RATES; 64 bits of torch's generator are four numbers of 16.

    A mask of bools would be converted to the dtype of the weights in the forward and in the backward pass, which takes
    several times as long as the products; in float32 it stays one, as it takes a quarter of the memory.
    """
    count = weights.numel()
    draws = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-count // 4),), device=weights.device)
    numbers, least = draws.view(torch.int16)[:count].view(weights.shape), dropped - RATES // 2
    if weights.dtype is torch.bfloat16 and differentiates_by_hand() and not torch.compiler.is_compiling():
        return torch.ge(numbers, least, out=torch.empty_like(weights))
    return numbers >= least
