"""The interface of every backbone: images to tokens.

Legend: b images, c channels, y x rows and columns of pixels, t prefix and patch tokens, d width.
"""

import re
from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from headsweep.errors import UserError


class Backbone(nn.Module, ABC):
    """Images to normalised tokens, the class token first if there is one.

    A subclass is built of its options (a `ModelConfig`), the side of the images, their channels, and whether the head
    reads a class token. It implements `forward`; the other methods refuse, or say that it has nothing special.

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

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Tokens after the final norm."""

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
