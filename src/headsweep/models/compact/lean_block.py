"""A transformer block of a compiled step on a GPU, written so that its kernels move less memory.

Besides its products, such a step is bound by memory. What it moves is mostly the residual stream, in float32 also under
autocast, and its normalised tokens. Here

- the tokens that `norm1` normalises are kept instead of the normalised ones, which the backward pass recomputes;
- of `norm2`, the operand of the product after it is kept, in bfloat16 under autocast. It is without gain and bias,
  which weight and bias of that product include (as in the heads' class attention), so that the gradient can be computed
  from it. `norm1` is folded so only where the attention kernel sums its gradients over tokens (see
  `packed_operators`): the product after it has no bias, whose gradient would be one more pass. Where the stream is
  normalised itself (`stream_norm`), it is computed from its tokens wherever it is read;
- the last bias is added together with the residual, so that its gradient is a sum of what the kernel of the gradient of
  `norm2` reads anyway;
- where stream and products have one dtype, stochastic depth multiplies the input of the last product, not its result:
  the gradient of that result is then the gradient of the stream, and is not written again.

The results are those of the plain block but for rounding, with the same random draws. Only a compiler that fuses gains
from it: in eager mode it would be slower.

Legend: b images, n tokens, d width, h hidden width, o features out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headsweep.heads.layers.precision import product_dtype


def gains(tokens: Tensor) -> bool:
    """Return whether these tokens are part of a graph that is compiled for training on a GPU."""
    return torch.compiler.is_dynamo_compiling() and tokens.is_cuda and torch.is_grad_enabled()


def normalised(norm: nn.LayerNorm, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Return `norm(tokens)`, to be recomputed in the backward pass.

    Mean and scale are kept: sums over all tokens that depend on a sum over one do not fit into the same kernel.
    """
    statistics = _mean_and_scale(norm, tokens)
    recomputed: Tensor = checkpoint(
        Normalised.apply, tokens, *statistics, norm.weight, norm.bias, use_reentrant=False, preserve_rng_state=False
    )
    return recomputed


def linear_of_normalised(
    norm: nn.LayerNorm, linear: nn.Linear, tokens: Float[Tensor, "b n d"]
) -> Float[Tensor, "b n o"]:
    """Return `linear(norm(tokens))`."""
    return _folded(norm, linear, Standardised.apply(tokens, *_mean_and_scale(norm, tokens), product_dtype(tokens)))


def _folded(norm: nn.LayerNorm, linear: nn.Linear, standard: Float[Tensor, "b n d"]) -> Float[Tensor, "b n o"]:
    bias = linear.bias + (linear.weight * norm.bias).sum(-1)
    return F.linear(standard, linear.weight * norm.weight, bias)


def normalised_and_its_linear(
    norm: nn.LayerNorm, linear: nn.Linear, tokens: Float[Tensor, "b n d"]
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n o"]]:
    """Return `norm(tokens)` and `linear(norm(tokens))`."""
    statistics = _mean_and_scale(norm, tokens)
    exact, standard = StandardisedTwice.apply(tokens, *statistics, norm.weight, norm.bias, product_dtype(tokens))
    return exact, _folded(norm, linear, standard)


def product_of_normalised(
    norm: nn.LayerNorm, linear: nn.Linear, tokens: Float[Tensor, "b n d"]
) -> tuple[Float[Tensor, "b n o"], Float[Tensor, " o"]]:
    """Return `linear(norm(tokens))` of a layer without bias, and the vector that comes from the bias of `norm`.

    The product includes that vector detached: its gradient, a sum over tokens, is left to who reads the product.
    """
    standard = Standardised.apply(tokens, *_mean_and_scale(norm, tokens), product_dtype(tokens))
    added = (linear.weight * norm.bias).sum(-1)
    return F.linear(standard, linear.weight * norm.weight, added.detach()), added


def linear_with_exact_bias(linear: nn.Linear, hidden: Float[Tensor, "b n h"]) -> Float[Tensor, "b n o"]:
    """Return `linear(hidden)` with the bias added to the product in its own dtype, float32 also under autocast."""
    return F.linear(hidden, linear.weight) + linear.bias


def add_linear(
    stream: Float[Tensor, "b n d"], linear: nn.Linear, hidden: Float[Tensor, "b n h"], factors: Float[Tensor, "b *_"]
) -> Float[Tensor, "b n d"]:
    """Return `stream + factors * linear(hidden)` for a residual stream in the dtype of the product.

    With the factors before the product, the gradient of the product is that of the stream: one tensor.
    """
    return BiasedSum.apply(stream, F.linear((hidden * factors).to(hidden.dtype), linear.weight), linear.bias, factors)


class Normalised(torch.autograd.Function):
    """(x - mean) * scale * gain + bias, where mean and scale are those of x: its gradient is that of a layer norm."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Float[Tensor, "b n d"],
        mean: Float[Tensor, "b n 1"],
        scale: Float[Tensor, "b n 1"],
        weight: Float[Tensor, " d"],
        bias: Float[Tensor, " d"],
    ) -> Float[Tensor, "b n d"]:
        """Normalise each token."""
        ctx.save_for_backward(tokens, mean, scale, weight)
        return ((tokens - mean) * scale * weight + bias).to(torch.promote_types(tokens.dtype, weight.dtype))

    @staticmethod
    def backward(ctx: Any, by: Float[Tensor, "b n d"]) -> tuple[Tensor, None, None, Tensor, Tensor]:
        """The gradients of tokens, gain and bias."""
        tokens, mean, scale, weight = ctx.saved_tensors
        by, standard = by.to(scale.dtype), (tokens - mean) * scale
        by_tokens = _by_tokens(by * weight, standard, scale).to(tokens.dtype)
        return by_tokens, None, None, _over_tokens(by * standard), _over_tokens(by)


class Standardised(torch.autograd.Function):
    """(x - mean) * scale in another dtype, where mean and scale are those of x; only that result is kept, and scale."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Float[Tensor, "b n d"],
        mean: Float[Tensor, "b n 1"],
        scale: Float[Tensor, "b n 1"],
        dtype: torch.dtype,
    ) -> Float[Tensor, "b n d"]:
        """Standardise each token."""
        standard = ((tokens - mean) * scale).to(dtype)
        # As another view: of two conversions in a row the compiler leaves the first one out, and would keep its input.
        ctx.save_for_backward(standard.flatten(0, 1), scale)
        ctx.dtype = tokens.dtype
        return standard

    @staticmethod
    def backward(ctx: Any, by: Float[Tensor, "b n d"]) -> tuple[Tensor, None, None, None]:
        """The gradient of tokens."""
        kept, scale = ctx.saved_tensors
        by_tokens = _by_tokens(by.to(scale.dtype), kept.to(scale.dtype).view_as(by), scale)
        return by_tokens.to(ctx.dtype), None, None, None


class StandardisedTwice(torch.autograd.Function):
    """(x - mean) * scale, once with gain and bias in the dtype of x, once as of `Standardised`, which alone is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Float[Tensor, "b n d"],
        mean: Float[Tensor, "b n 1"],
        scale: Float[Tensor, "b n 1"],
        weight: Float[Tensor, " d"],
        bias: Float[Tensor, " d"],
        dtype: torch.dtype,
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """Standardise each token."""
        exact = (tokens - mean) * scale
        standard = exact.to(dtype)
        ctx.save_for_backward(standard.flatten(0, 1), scale, weight)
        return (exact * weight + bias).to(tokens.dtype), standard

    @staticmethod
    def backward(
        ctx: Any, by: Float[Tensor, "b n d"], by_standard: Float[Tensor, "b n d"]
    ) -> tuple[Tensor, None, None, Tensor, Tensor, None]:
        """The gradients of tokens, gain and bias."""
        kept, scale, weight = ctx.saved_tensors
        by_exact, standard = by.to(scale.dtype), kept.to(scale.dtype).view_as(by)
        by_tokens = _by_tokens(by_exact * weight + by_standard.to(scale.dtype), standard, scale).to(by.dtype)
        return by_tokens, None, None, _over_tokens(by_exact * standard), _over_tokens(by_exact), None


class BiasedSum(torch.autograd.Function):
    """x + y + factors * bias, summed in float32 at least, for a residual stream x and a branch y of one dtype."""

    @staticmethod
    def forward(
        ctx: Any,
        stream: Float[Tensor, "b n d"],
        branch: Float[Tensor, "b n d"],
        bias: Float[Tensor, " d"],
        factors: Float[Tensor, "b *_"],
    ) -> Float[Tensor, "b n d"]:
        """Add them in the dtype of the stream."""
        ctx.save_for_backward(factors)
        return (_exact(stream) + _exact(branch) + factors * bias).to(stream.dtype)

    @staticmethod
    def backward(ctx: Any, by: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradients of stream and branch, which are equal, and of the bias."""
        (factors,) = ctx.saved_tensors
        return by, by, _over_tokens(by * factors), None


def _over_tokens(values: Float[Tensor, "*b d"]) -> Float[Tensor, " d"]:
    return values.flatten(0, -2).sum(0)


def _by_tokens(
    by: Float[Tensor, "b n d"], standard: Float[Tensor, "b n d"], scale: Float[Tensor, "b n 1"]
) -> Float[Tensor, "b n d"]:
    """Return the gradient of tokens from that of the standardised ones."""
    along = (by * standard).mean(-1, keepdim=True)
    return (by - by.mean(-1, keepdim=True) - standard * along) * scale


@torch.no_grad()
def _mean_and_scale(
    norm: nn.LayerNorm, tokens: Float[Tensor, "b n d"]
) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 1"]]:
    """Return the mean of each token, and one over its deviation, in float32 at least."""
    variance, mean = torch.var_mean(_exact(tokens), -1, correction=0, keepdim=True)
    return mean, (variance + norm.eps).rsqrt()


def _exact(values: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    return values.to(torch.promote_types(values.dtype, torch.float32))
