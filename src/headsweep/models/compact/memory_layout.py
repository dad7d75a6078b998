"""Memory layout of a tokenizer's planes on a CPU, where it decides how fast they are convolved and pooled.

With channels last, pooling is vectorised over channels, and its planes are tokens without a copy; values and gradients
are the same bits. A convolution may sum in another order then: in float32 it keeps channels first, and so the bits of
earlier runs. The first one sums over so few channels that oneDNN does it in one order (`_sums_alike`).
"""

# b images, c channels, y x rows and columns of pixels

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.heads.layers.precision import product_dtype

FEW_CHANNELS = 3  # with more, the order of a sum depends on the layout


def arrange_for_convolution(planes: Float[Tensor, "b c y x"], overlaps: bool) -> Float[Tensor, "b c y x"]:
    """Arrange the input of a convolution: on a CPU with channels last in bfloat16 or for few of them, otherwise first.

    Args:
        planes: the input.
        overlaps: whether the kernel is larger than the stride.
    """
    if planes.device.type != "cpu":
        return planes
    last = product_dtype(planes) is torch.bfloat16 or (overlaps and _sums_alike(planes))
    return planes.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def arrange_for_pooling(planes: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
    """Arrange a convolution's output: on a CPU with channels last."""
    return planes.contiguous(memory_format=torch.channels_last) if planes.device.type == "cpu" else planes


def _sums_alike(planes: Float[Tensor, "b c y x"]) -> bool:
    """Return whether a convolution and the gradient of its weights are the same bits in either layout.

    torch convolves a single image without oneDNN if channels come first. Sums over images are split between threads,
    and where some have more images than others, the layout decides which.
    """
    if torch.compiler.is_compiling() or planes.shape[1] > FEW_CHANNELS or planes.requires_grad:
        return False
    count = planes.shape[0]
    return count > 1 and (not torch.is_grad_enabled() or count % torch.get_num_threads() == 0)
