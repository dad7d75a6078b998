"""Where attention of packed queries, keys and values by Triton kernels is possible, whose gradient is packed as well.

torch's attention takes three tensors and returns three gradients, which a copy packs for the product before. Here they
stay packed: see `packed_operators`.

Legend: b images, n tokens, d width.
"""

import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.config import AttentionKernel
from headsweep.errors import ConfigError
from headsweep.heads.layers.precision import product_dtype

KEY = "model.attention_kernel"
MOST_TOKENS = 256  # whose keys and values fit into one program
LEAST_CAPABILITY = (8, 0)  # the first with products in bfloat16; older GPUs lack shared memory as well


def check_token_count(kernel: AttentionKernel, tokens: int) -> None:
    """Raise ConfigError if `kernel` cannot attend to so many tokens of an image."""
    if kernel is AttentionKernel.triton and tokens > MOST_TOKENS:
        expected = f"expected torch: an image has {tokens} tokens, and the kernels are for at most {MOST_TOKENS}"
        raise ConfigError(KEY, kernel.value, expected)


def check_device(kernel: AttentionKernel, device: torch.device) -> None:
    """Raise ConfigError unless `kernel` can be compiled and run on this device."""
    if kernel is AttentionKernel.torch:
        return
    if device.type != "cuda":
        raise ConfigError(KEY, kernel.value, f"expected torch: the kernels are for a GPU, and the device is {device}")
    if (found := torch.cuda.get_device_capability(device)) < LEAST_CAPABILITY:
        least, this = (".".join(map(str, each)) for each in (LEAST_CAPABILITY, found))
        expected = f"expected torch: the kernels are for compute capability {least} and above, and {device} has {this}"
        raise ConfigError(KEY, kernel.value, expected)
    if importlib.util.find_spec("triton") is None:
        raise ConfigError(KEY, kernel.value, "expected the package triton, which is not installed; use torch")


def fits(tokens: Float[Tensor, "b n d"]) -> bool:
    """Return whether the kernels can compute attention between these."""
    half = product_dtype(tokens) in (torch.bfloat16, torch.float16)
    return tokens.is_cuda and half and tokens.shape[1] <= MOST_TOKENS
