"""The interface of every backbone: images to tokens, of the last block or of others.

Legend: b images, c channels, y x rows and columns of pixels, t prefix and patch tokens, d width.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.config import TokensConfig
from headsweep.errors import ConfigError, UserError


@dataclass(frozen=True)
class Blocks:
    """The blocks whose tokens are concatenated."""

    indices: list[int]  # from 0, ascending
    norm: bool  # whether the final norm is applied to the tokens of each


class Backbone(nn.Module, ABC):
    """Images to tokens, the class token first if there is one.

    A subclass is built of its options (a `ModelConfig`), the side of the images, their channels, and whether the head
    reads a class token. It implements `forward`; the other methods refuse, or return what holds for a plain backbone.

    Args:
        width: D, the width of a token.
        tokens: N, patch tokens of an image of the size that the model is built for.
        prefix: tokens before the patch tokens (class token, registers).
        channels: of the images.
    """

    def __init__(self, width: int, tokens: int, prefix: int, channels: int) -> None:
        super().__init__()
        self.width, self.tokens, self.prefix, self.channels = width, tokens, prefix, channels
        self.has_class_token = prefix > 0
        self.blocks_read: Blocks | None = None  # None: the last one, after the final norm

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Tokens after the final norm."""

    def read(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Tokens after the final norm, or those of the selected blocks."""
        return self(images) if self.blocks_read is None else self._tokens_of(self.blocks_read, images)

    def select(self, name: str, tokens: TokensConfig) -> None:
        """Read the tokens of the blocks that the configuration of a model called `name` selects.

        All weights stay, so that a checkpoint of the whole model fits; `drop_unread` drops those not needed.

        Raises:
            ConfigError: there are no such blocks, or their tokens cannot be read.
        """
        if tokens.reads_last:
            return
        count = self.count_blocks()
        if not count:
            raise last_alone(name, tokens, "it describes no others")
        last = tokens.layer + count if tokens.layer < 0 else tokens.layer
        if not 0 <= last < count:
            found = f"expected a number in [-{count}, {count - 1}]: model.name={name} has {count}"
            raise ConfigError("tokens.layer", tokens.layer, found)
        if tokens.last > last + 1:
            found = f"expected at most {last + 1}, the blocks of model.name={name} up to tokens.layer={tokens.layer}"
            raise ConfigError("tokens.last", tokens.last, found)
        if (last, tokens.last, tokens.norm) != (count - 1, 1, True):
            self.blocks_read = Blocks(list(range(last + 1 - tokens.last, last + 1)), tokens.norm)
            self._measure_selected(name, tokens)

    def count_blocks(self) -> int:
        """Return the number of blocks whose tokens can be read; 0 if only the last ones can."""
        return len(self.feature_info())

    def _measure_selected(self, name: str, tokens: TokensConfig) -> None:
        """Set width and number of the selected tokens. Raises ConfigError as `select`."""
        self.width *= tokens.last

    def drop_unread(self) -> None:
        """Drop the weights that the selected blocks do not need."""
        if self.blocks_read is not None:
            self.prune_intermediate_layers(self.blocks_read.indices, prune_norm=not self.blocks_read.norm)

    def _tokens_of(self, blocks: Blocks, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Concatenate the tokens of blocks along their width."""
        features = self.forward_intermediates(
            images,
            blocks.indices,
            return_prefix_tokens=self.prefix > 0,
            norm=blocks.norm,
            stop_early=True,
            intermediates_only=True,
        )
        return torch.cat([self._as_tokens(blocks, feature) for feature in features], -1)

    def _as_tokens(self, blocks: Blocks, feature: Any) -> Float[Tensor, "b t d"]:
        """Return a feature, (b d y x) or a pair of that and its prefix tokens, as tokens."""
        patches, *prefix = feature if self.prefix else (feature,)
        return torch.cat([*prefix, patches.flatten(2).transpose(1, 2)], 1)

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
        """Return the tokens after the final norm and intermediate features, as timm's VisionTransformer does.

        Args:
            images: as for `forward`.
            indices: the last so many, those numbers, or all.
            return_prefix_tokens: pair each feature with its prefix tokens.
            norm: apply the final norm to each feature.
            stop_early: compute no further than the last feature.
            output_fmt: NCHW, or NLC where tokens make the features.
            intermediates_only: the list alone.

        Raises:
            UserError: it returns no intermediate features.
        """
        raise UserError(f"{type(self).__name__}: expected a backbone that returns intermediate features")

    def prune_intermediate_layers(self, indices: int | list[int] | tuple[int, ...], prune_norm: bool) -> list[int]:
        """Drop the blocks after the last of these features; return their indices. Raises UserError as above."""
        raise UserError(f"{type(self).__name__}: expected a backbone that returns intermediate features")

    def feature_info(self) -> list[dict[str, Any]]:
        """Module, channels and stride of every feature, as timm describes them."""
        return []

    def set_input_size(self, image_size: tuple[int, int]) -> None:
        """Adapt to images of so many rows and columns; learnable positions are resampled.

        Raises:
            UserError: it cannot take such images.
        """
        raise UserError(
            f"set_input_size({image_size}): {type(self).__name__} has a fixed size; build it with that size"
        )

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Recompute blocks in the backward pass instead of storing their activations.

        Raises:
            NotImplementedError: it cannot.
        """
        if enable:
            raise NotImplementedError

    def group_matcher(self, coarse: bool) -> dict[str, Any]:
        """Return parameter groups by depth, as regular expressions over the backbone's own names; by default one."""
        return {"stem": r"^"}

    def no_weight_decay(self) -> set[str]:
        """Return the parameters without weight decay, besides the one-dimensional ones."""
        return set()


def last_alone(name: str, tokens: TokensConfig, reason: str) -> ConfigError:
    """Return the error of a model that gives the tokens of its last layer alone."""
    keys = (("layer", tokens.layer, -1), ("last", tokens.last, 1), ("norm", tokens.norm, True))
    key, found, default = next((key, found, default) for key, found, default in keys if found != default)
    only = f"model.name={name} gives only the tokens of its last layer, after the final norm ({reason})"
    return ConfigError(f"tokens.{key}", str(found).lower(), f"expected {str(default).lower()}: {only}")


def one_level_down(patterns: Any, name: str) -> Any:
    """Convert timm's regular expressions over a module's names to those of its parent, which holds it as `name`."""
    if isinstance(patterns, str):
        unanchored = re.sub(r"(?<!\[)\^", "", patterns)
        return rf"^{name}\.(?:{unanchored})"
    if isinstance(patterns, (dict, list, tuple)):
        items = patterns.items() if isinstance(patterns, dict) else enumerate(patterns)
        moved = {key: one_level_down(value, name) for key, value in items}
        return moved if isinstance(patterns, dict) else type(patterns)(moved.values())
    return patterns
