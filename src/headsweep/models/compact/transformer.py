"""ViT-Lite, CVT and CCT without their heads (arXiv 2104.05704, section 3): images to tokens.

The three differ in the tokenizer (patches or convolutions) and in what reads the tokens: ViT-Lite has a class token,
CVT and CCT a sequence pooling head. A class token is built if the head reads one.

Legend: b images, c channels, y x rows and columns of pixels, n patch tokens, t tokens with the class token if there is
one, d width.
"""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed, to_2tuple, trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headsweep.config import Block as BlockKind
from headsweep.config import CompactConfig, Positions
from headsweep.config import Tokenizer as TokenizerKind
from headsweep.errors import ConfigError, UserError
from headsweep.heads.layers.buffers import derive_after_loading
from headsweep.models.backbone import Backbone
from headsweep.models.compact.block import Block
from headsweep.models.compact.lean_block import gains, normalised
from headsweep.models.compact.packed_attention import check_token_count
from headsweep.models.compact.recorded import describe
from headsweep.models.compact.residual_stream import as_parameters, as_stream
from headsweep.models.compact.tokenizer import Tokenizer
from headsweep.models.drop_path import DropPath, draw_at_once

for _name in ("as_parameters", "as_stream"):
    torch.fx.wrap(_name)  # FX cannot trace a dtype


class CompactTransformer(Backbone):
    """Tokenizer, positions, encoder blocks and the final LayerNorm.

    Args:
        model: the architecture.
        image_size: side of the images in pixels, or (rows, columns).
        channels: of the images.
        class_token: put a learned class token before the patch tokens, as ViT-Lite does.
    """

    positions: Tensor
    architecture: Tensor

    def __init__(
        self, model: CompactConfig, image_size: int | tuple[int, int], channels: int, class_token: bool = False
    ) -> None:
        size: tuple[int, int] = to_2tuple(image_size)
        rows, columns = _grid(model, size)
        super().__init__(model.width, rows * columns, int(class_token), channels)
        check_token_count(model.attention_kernel, self.prefix + self.tokens)
        self.options, self.image_size, self.grid, self.grad_checkpointing = model, size, (rows, columns), False
        self.tokenizer = Tokenizer(model, channels)
        self._add_positions(model.positions)
        derive_after_loading(self)
        self.dropout = nn.Dropout(model.dropout)
        rates = torch.linspace(0, model.drop_path, model.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(model, rate) for rate in rates)
        self.norm: nn.Module = nn.LayerNorm(model.width)
        if class_token:
            self._add_class_token(model.positions)
        self.register_buffer("architecture", describe(model, self.grid))

    def set_block(self, kind: BlockKind) -> None:
        """Change the kind of all blocks."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.kind = kind
        self.options = dataclasses.replace(self.options, block=kind)
        self.architecture = describe(self.options, self.grid).to(self.architecture.device)

    def _add_positions(self, kind: Positions) -> None:
        """Add positions: learnable ones are parameters; sine ones are computed from the shape and not saved."""
        count = self.prefix + self.tokens
        if kind is Positions.learnable:
            self.positions = nn.Parameter(torch.empty(1, count, self.width))
            trunc_normal_(self.positions.detach()[:, self.prefix :], std=0.2)
        for name, fixed in self.derived_buffers().items():
            self.register_buffer(name, fixed, persistent=False)

    def derived_buffers(self) -> dict[str, Tensor]:
        """Compute positions that are not learned."""
        if self.options.positions is Positions.learnable:
            return {}
        if self.options.positions is Positions.sine:
            return {"positions": sine_positions(self.prefix + self.tokens, self.options.width)}
        return {"positions": torch.zeros(1, 1, self.options.width)}

    def _add_class_token(self, kind: Positions) -> None:
        """Add a class token, drawn last: all other parameters start byte-identical with and without it."""
        self.class_token = nn.Parameter(torch.zeros(1, 1, self.width))
        if kind is Positions.learnable:
            trunc_normal_(self.positions.detach()[:, :1], std=0.2)

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Tokens after the final LayerNorm.

        Raises:
            ValueError: there are positions, and the images are not of the size that they were made for.
        """
        tokens = self._embed(images)
        for block, factors in zip(self.blocks, self._factors(tokens), strict=True):
            tokens = self._refine(block, tokens, factors)
        if isinstance(self.norm, nn.LayerNorm) and gains(tokens):
            return normalised(self.norm, tokens)
        return self.norm(as_parameters(tokens, self.positions))

    def _embed(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Tokens with their positions, before the first block."""
        if self.options.positions is not Positions.none:
            _check_size(images, self.image_size)
        tokens = self.tokenizer(images)
        if self.prefix:
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], 1)
        return as_stream(self.dropout(tokens + self.positions), self.options.residual_precision)

    def _factors(self, tokens: Float[Tensor, "b t d"]) -> list[Float[Tensor, "2 b 1 1"] | None]:
        """Return the factors of stochastic depth of each block: of one draw on a GPU, where each draw is a launch.

        None: the block draws them.
        """
        paths = [block.drop_path for block in self.blocks if isinstance(block.drop_path, DropPath)]
        if not (self.training and paths and paths[0].keep.is_cuda):
            return [None] * len(self.blocks)
        drawn = draw_at_once(torch.stack([path.keep for path in paths]), 2, tokens)
        return [drawn[index] for index in range(len(paths))]

    def _refine(
        self, block: nn.Module, tokens: Float[Tensor, "b t d"], factors: Float[Tensor, "2 b 1 1"] | None
    ) -> Float[Tensor, "b t d"]:
        recompute = self.grad_checkpointing and self.training
        return checkpoint(block, tokens, factors, use_reentrant=False) if recompute else block(tokens, factors)

    def forward_intermediates(
        self,
        images: Float[Tensor, "b c y x"],
        indices: int | list[int] | tuple[int, ...] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """See `Backbone`; features are the tokens after each block, before the final norm."""
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt={output_fmt}: expected NCHW or NLC")
        selected, last = feature_take_indices(len(self.blocks), indices)
        tokens, taken = self._embed(images), []
        read = self.blocks[: last + 1] if stop_early else self.blocks
        for index, (block, factors) in enumerate(zip(read, self._factors(tokens), strict=False)):
            tokens = self._refine(block, tokens, factors)
            if index in selected:
                feature = as_parameters(tokens, self.positions)
                taken.append(self.norm(feature) if norm else feature)
        grid = _grid(self.options, (images.shape[2], images.shape[3]))
        features: list[Any] = [self._feature(each, grid, output_fmt) for each in taken]
        if return_prefix_tokens and self.prefix:
            features = [(feature, each[:, : self.prefix]) for feature, each in zip(features, taken, strict=True)]
        return features if intermediates_only else (self.norm(as_parameters(tokens, self.positions)), features)

    def _feature(self, tokens: Float[Tensor, "b t d"], grid: tuple[int, int], output_fmt: str) -> Tensor:
        """Return the patch tokens, as (b d rows columns) or unchanged."""
        patches = tokens[:, self.prefix :]
        return patches.transpose(1, 2).unflatten(2, grid).contiguous() if output_fmt == "NCHW" else patches

    def prune_intermediate_layers(self, indices: int | list[int] | tuple[int, ...], prune_norm: bool) -> list[int]:
        """Drop the blocks after the last of these."""
        selected, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        return selected

    def feature_info(self) -> list[dict[str, Any]]:
        """Describe one feature per block, all of the same stride."""
        model = self.options
        reduction = (
            model.stride if model.tokenizer is TokenizerKind.patch else (2 * model.stride) ** model.tokenizer_layers
        )
        return [
            {"module": f"blocks.{index}", "num_chs": self.options.width, "reduction": reduction}
            for index in range(len(self.blocks))
        ]

    def set_input_size(self, image_size: tuple[int, int]) -> None:
        """Resample learnable positions bicubically, as timm's VisionTransformer does; recompute sine ones."""
        check_size(self.options, image_size)
        before, self.grid = self.grid, _grid(self.options, image_size)
        self.image_size, self.tokens = image_size, self.grid[0] * self.grid[1]
        if self.options.positions is Positions.learnable:
            resampled = resample_abs_pos_embed(self.positions.detach(), self.grid, before, self.prefix)
            self.positions = nn.Parameter(resampled, requires_grad=self.positions.requires_grad)
        elif self.options.positions is Positions.sine:
            self.positions = sine_positions(self.prefix + self.tokens, self.options.width).to(self.positions)
        self.architecture = describe(self.options, self.grid).to(self.architecture.device)

    def set_grad_checkpointing(self, enable: bool) -> None:
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool) -> dict[str, Any]:
        """Group the stem, each block, and the final norm with the last block."""
        blocks = [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^(?:tokenizer|positions|class_token)", "blocks": r"^blocks\.(\d+)" if coarse else blocks}

    def no_weight_decay(self) -> set[str]:
        """Return no names: the published recipes decay positions and class token."""
        return set()


def check_size(model: CompactConfig, image_size: tuple[int, int]) -> None:
    """Raise UserError unless images of so many rows and columns divide into whole tokens."""
    try:
        for pixels in image_size:
            model.check_image_size(pixels)
    except ConfigError as error:
        raise UserError(f"img_size={error.found}: {error.expected}") from error


def _grid(model: CompactConfig, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of tokens."""
    rows, columns = image_size
    return model.side(rows), model.side(columns)


@torch.fx.wrap  # in a trace of FX, a shape is no number to compare
def _check_size(images: Float[Tensor, "b c y x"], expected: tuple[int, int]) -> None:
    rows, columns = images.shape[-2:]
    if (rows, columns) != expected:
        raise ValueError(
            f"images of {rows}x{columns}: expected {expected[0]}x{expected[1]}, the size that the model was built for; "
            f"call set_input_size(({rows}, {columns})) or build it with img_size=({rows}, {columns})"
        )


def sine_positions(count: int, width: int) -> Float[Tensor, "1 n d"]:
    """Return sinusoidal positions: channels 2i and 2i + 1 are sine and cosine of position / 10000^(2i / D)."""
    pair = torch.arange(width, dtype=torch.float64) // 2
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * pair / width)
    even = torch.arange(width) % 2 == 0
    return torch.where(even, angle.sin(), angle.cos()).float().unsqueeze(0)
