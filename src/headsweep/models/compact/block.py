"""The transformer block of ViT-Lite, CVT and CCT (arXiv 2104.05704, section 3).

Legend: b images, n tokens, d width, h attention heads, w width of an attention head, o = 3 h w.
"""

import torch
from jaxtyping import Float
from timm.layers import trunc_normal_
from torch import Tensor, nn

from headsweep.config import AttentionKernel, CompactConfig
from headsweep.config import Block as BlockKind
from headsweep.heads.layers.precision import product_dtype
from headsweep.models.compact.attention import attend
from headsweep.models.compact.lean_block import (
    add_linear,
    gains,
    linear_of_normalised,
    linear_with_exact_bias,
    normalised,
    normalised_and_its_linear,
    product_of_normalised,
)
from headsweep.models.compact.packed_attention import fits
from headsweep.models.compact.residual_stream import add, as_parameters
from headsweep.models.drop_path import DropPath

for _name in ("attend", "add", "as_parameters"):
    torch.fx.wrap(_name)  # FX cannot trace a device or a dtype


class SelfAttention(nn.Module):
    """Multi-head self-attention, query, key and value without bias."""

    def __init__(self, model: CompactConfig) -> None:
        super().__init__()
        width, dropout = model.width, model.dropout
        self.heads, self.attention_dropout = model.attention_heads, model.attention_dropout
        self.own_kernel = model.attention_kernel is AttentionKernel.triton
        self.qkv = _linear(width, 3 * width, bias=False)
        self.proj = _linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Tokens mixed by attention."""
        packed = self._unflattened(self.qkv(tokens))
        if self._stays_packed(tokens):
            return self._projected(self._attend_packed(packed))
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind()
        dropout = self.attention_dropout if self.training else 0.0
        return self._projected(attend(query, key, value, dropout).transpose(1, 2))

    def of_normalised(self, norm: nn.LayerNorm, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """`self(norm(tokens))` in a lean block."""
        if not self._stays_packed(tokens):
            return self(normalised(norm, tokens))
        packed, added = product_of_normalised(norm, self.qkv, tokens)
        return self._projected(self._attend_packed(self._unflattened(packed), added))

    def _stays_packed(self, tokens: Float[Tensor, "b n d"]) -> bool:
        return self.own_kernel and self.training and fits(tokens)

    def _attend_packed(
        self, packed: Float[Tensor, "b n 3 h w"], added: Float[Tensor, " o"] | None = None
    ) -> Float[Tensor, "b n h w"]:
        from headsweep.models.compact.packed_operators import attend_packed

        return attend_packed(packed, self.attention_dropout, added)

    def _unflattened(self, packed: Float[Tensor, "b n o"]) -> Float[Tensor, "b n 3 h w"]:
        return packed.unflatten(-1, (3, self.heads, -1))

    def _projected(self, mixed: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n d"]:
        return self.proj_drop(self.proj(mixed.flatten(-2)))


class Block(nn.Module):
    """A transformer block with stochastic depth; see `headsweep.config.Block` for its kinds."""

    def __init__(self, model: CompactConfig, drop_path: float) -> None:
        super().__init__()
        hidden = int(model.width * model.mlp_ratio)
        self.kind = model.block
        self.norm1 = nn.LayerNorm(model.width)
        self.attention = SelfAttention(model)
        self.norm2 = nn.LayerNorm(model.width)
        self.mlp = nn.Sequential(
            _linear(model.width, hidden),
            nn.GELU(),
            nn.Dropout(model.dropout),
            _linear(hidden, model.width),
            nn.Dropout(model.dropout),
        )
        # Also in the first block, whose rate is 0: all blocks share one compiled graph.
        self.drop_path = DropPath(drop_path) if model.drop_path else nn.Identity()
        self.may_be_lean = model.dropout == 0  # of numbers in another dtype, dropout would draw other ones

    def forward(
        self, tokens: Float[Tensor, "b n d"], factors: Float[Tensor, "2 b 1 1"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Refined tokens; `factors` are those of stochastic depth, for both branches, if they are drawn elsewhere."""
        if self.may_be_lean and gains(tokens):
            return self.lean(tokens, factors)
        mixed = self.norm1(as_parameters(tokens, self.norm1.weight))
        if self.kind is not BlockKind.no_attention:
            mixed = self.attention(mixed)
        tokens = add(tokens, self._dropped(mixed, factors, 0))
        inside = self.norm2(as_parameters(tokens, self.norm2.weight))
        stream = inside.to(tokens.dtype) if self.kind is BlockKind.stream_norm else tokens
        return add(stream, self._dropped(self.mlp(inside), factors, 1))

    def lean(self, tokens: Float[Tensor, "b n d"], factors: Float[Tensor, "2 b 1 1"] | None) -> Float[Tensor, "b n d"]:
        """The same without dropout; see `headsweep.models.compact.lean_block`."""
        expand, activation, _, contract, _ = self.mlp
        assert isinstance(expand, nn.Linear) and isinstance(contract, nn.Linear)
        if self.kind is BlockKind.no_attention:
            mixed = normalised(self.norm1, tokens)
        else:
            mixed = self.attention.of_normalised(self.norm1, tokens)
        stream = add(tokens, self._dropped(mixed, factors, 0))
        if self.kind is BlockKind.stream_norm:
            stream, hidden = normalised_and_its_linear(self.norm2, expand, stream)
        else:
            hidden = linear_of_normalised(self.norm2, expand, stream)
        if stream.dtype is product_dtype(stream):
            return add_linear(stream, contract, activation(hidden), self._factors(stream, factors, 1))
        return add(stream, self._dropped(linear_with_exact_bias(contract, activation(hidden)), factors, 1))

    def _factors(
        self, tokens: Float[Tensor, "b n d"], factors: Float[Tensor, "2 b 1 1"] | None, index: int
    ) -> Float[Tensor, "b *_"]:
        """Return what a branch of each image is multiplied by."""
        if not (self.training and isinstance(self.drop_path, DropPath)):
            return torch.ones(1, 1, 1, device=tokens.device)
        return self.drop_path.draw(tokens) if factors is None else factors[index]

    def _dropped(
        self, branch: Float[Tensor, "b n d"], factors: Float[Tensor, "2 b 1 1"] | None, index: int
    ) -> Float[Tensor, "b n d"]:
        return self.drop_path(branch) if factors is None else self.drop_path(branch, factors[index])


def _linear(inside: int, outside: int, bias: bool = True) -> nn.Linear:
    """Build a linear layer initialised as in CCT: truncated normal of standard deviation 0.02, zero bias."""
    layer = nn.Linear(inside, outside, bias=bias)
    trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
