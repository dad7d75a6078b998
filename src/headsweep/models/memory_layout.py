"""Memory layout of a tokenizer's planes on a CPU, where it decides how fast they are convolved and pooled.

With channels last, pooling is vectorised over channels, and its planes are tokens without a copy; values and gradients
are the same bits. A convolution may sum in another order then: in float32 it keeps channels first, and so the bits of
earlier runs.
"""

# b images, c channels, y x rows and columns of pixels

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.layers.precision import product_dtype


def arrange_for_convolution(planes: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
    """Arrange the input of a convolution: on a CPU with channels last in bfloat16, otherwise first."""
    if planes.device.type != "cpu":
        return planes
    last = product_dtype(planes) is torch.bfloat16
    return planes.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def arrange_for_pooling(planes: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
    """Arrange a convolution's output: on a CPU with channels last."""
    return planes.contiguous(memory_format=torch.channels_last) if planes.device.type == "cpu" else planes
