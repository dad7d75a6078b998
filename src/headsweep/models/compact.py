"""The Compact Convolutional Transformer without its head (arXiv 2104.05704, section 3): images become tokens.

The encoder block is the usual pre-norm one, x + attention(norm1 x) then x + mlp(norm2 x), as in the SeqAttention
paper's code. The CCT authors' own code normalises the residual stream itself before the MLP; both have as many
parameters.

Legend: b images, c channels, y x rows and columns of pixels, n tokens, d width.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import DropPath, to_2tuple, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headsweep.config import ModelConfig, Positions

TOKENIZER_PLANES = 64  # channels between the tokenizer's layers


class Tokenizer(nn.Module):
    """Layers of convolution, ReLU and max-pooling, whose pixels are the tokens (section 3.2).

    Args:
        kernel: side of the convolutions; stride and padding follow from it as in the published models.
        layers: how many.
        channels: of the image.
        width: D.
    """

    def __init__(self, kernel: int, layers: int, channels: int, width: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, max(1, kernel // 2 - 1), max(1, kernel // 2)
        planes = [channels, *[TOKENIZER_PLANES] * (layers - 1), width]
        self.layers = nn.Sequential(*(self._layer(inside, outside) for inside, outside in pairwise(planes)))

    def _layer(self, planes_in: int, planes_out: int) -> nn.Sequential:
        convolution = nn.Conv2d(planes_in, planes_out, self.kernel, self.stride, self.padding, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        return nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(3, 2, 1))

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n d"]:
        """Tokens in row order."""
        return self.layers(images).flatten(2).transpose(1, 2)

    def side(self, pixels: int) -> int:
        """Tokens along a side of that many pixels."""
        for _ in self.layers:
            pixels = (pixels + 2 * self.padding - self.kernel) // self.stride + 1
            pixels = (pixels + 2 - 3) // 2 + 1
        return pixels


class SelfAttention(nn.Module):
    """Multi-head self-attention, query, key and value without bias."""

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.qkv = _linear(width, 3 * width, bias=False)
        self.proj = _linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Tokens mixed by attention."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(-2)))


class Block(nn.Module):
    """A pre-norm transformer block with stochastic depth."""

    def __init__(self, model: ModelConfig, drop_path: float) -> None:
        super().__init__()
        hidden = int(model.width * model.mlp_ratio)
        self.norm1 = nn.LayerNorm(model.width)
        self.attention = SelfAttention(model.width, model.attention_heads, model.dropout, model.attention_dropout)
        self.norm2 = nn.LayerNorm(model.width)
        self.mlp = nn.Sequential(
            _linear(model.width, hidden),
            nn.GELU(),
            nn.Dropout(model.dropout),
            _linear(hidden, model.width),
            nn.Dropout(model.dropout),
        )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Refined tokens."""
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class CCT(nn.Module):
    """Tokenizer, positions, encoder blocks and the final LayerNorm.

    Args:
        model: the architecture.
        image_size: side of the images in pixels, or (rows, columns).
        channels: of the images.
    """

    def __init__(self, model: ModelConfig, image_size: int | tuple[int, int], channels: int) -> None:
        super().__init__()
        self.width, self.grad_checkpointing = model.width, False
        self.tokenizer = Tokenizer(model.tokenizer_kernel, model.tokenizer_layers, channels, model.width)
        rows, columns = (self.tokenizer.side(pixels) for pixels in to_2tuple(image_size))
        self._add_positions(model.positions, rows * columns)
        self.dropout = nn.Dropout(model.dropout)
        rates = torch.linspace(0, model.drop_path, model.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(model, rate) for rate in rates)
        self.norm = nn.LayerNorm(model.width)

    def _add_positions(self, kind: Positions, count: int) -> None:
        """Learnable positions are trained; sine ones follow from the shape and are not even saved."""
        if kind is Positions.learnable:
            self.positions = nn.Parameter(trunc_normal_(torch.empty(1, count, self.width), std=0.2))
        elif kind is Positions.sine:
            self.register_buffer("positions", sine_positions(count, self.width), persistent=False)
        else:
            self.register_buffer("positions", torch.zeros(1, 1, self.width), persistent=False)

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n d"]:
        """Tokens after the final LayerNorm."""
        tokens = self.dropout(self.tokenizer(images) + self.positions)
        for block in self.blocks:
            recompute = self.grad_checkpointing and self.training
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return self.norm(tokens)


def sine_positions(count: int, width: int) -> Float[Tensor, "1 n d"]:
    """Sinusoidal positions: channels 2i and 2i + 1 are sine and cosine of position / 10000^(2i / D)."""
    pair = torch.arange(width, dtype=torch.float64) // 2
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * pair / width)
    even = torch.arange(width) % 2 == 0
    return torch.where(even, angle.sin(), angle.cos()).float().unsqueeze(0)


def _linear(inside: int, outside: int, bias: bool = True) -> nn.Linear:
    """A linear layer as CCT draws it: truncated normal of deviation 0.02, zero bias."""
    layer = nn.Linear(inside, outside, bias=bias)
    trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
