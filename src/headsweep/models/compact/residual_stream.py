"""The residual stream: the tokens that each block adds to, in float32 or, under autocast, in bfloat16.

In bfloat16 it is rounded after each sum, and moves half the memory. Norms and heads compute with it in float32.
"""

# b images, n tokens, d width

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.config import ResidualPrecision
from headsweep.heads.layers.precision import product_dtype


def as_stream(tokens: Float[Tensor, "b n d"], precision: ResidualPrecision) -> Float[Tensor, "b n d"]:
    """Return the tokens of the first block; without autocast, they keep their dtype."""
    rounds = precision is ResidualPrecision.bfloat16 and product_dtype(tokens) is torch.bfloat16
    return tokens.bfloat16() if rounds else tokens


def as_parameters(stream: Float[Tensor, "b n d"], parameter: Tensor) -> Float[Tensor, "b n d"]:
    """Return tokens in the dtype of the parameters, if that is wider, for a norm or for the head.

    Given bfloat16, the layer norm of torch on a CPU sums the gradients of its parameters in it: 10 to 25 % off.
    """
    return stream.to(torch.promote_types(stream.dtype, parameter.dtype))


def add(stream: Float[Tensor, "b n d"], branch: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Return the sum in the dtype of the stream."""
    return stream + (branch if stream.dtype is torch.float32 else branch.to(stream.dtype))
