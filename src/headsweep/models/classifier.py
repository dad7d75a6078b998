"""A backbone and a head as one model, with the methods of timm's models.

Legend: b images, c channels, y x rows and columns of pixels, n patch tokens, t tokens with the prefix tokens, d width,
k branches, l classes.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import to_2tuple
from torch import Tensor, nn

from headsweep.errors import UserError
from headsweep.heads import Head
from headsweep.models.argument_checks import check_image_size, check_integer
from headsweep.models.backbone import Backbone, one_level_down
from headsweep.models.checkpoints.fit import compute_as, fit
from headsweep.models.compact.recorded import recorded_architecture
from headsweep.models.read_tokens import ClassToken, ReadTokens

LOGGER = logging.getLogger("headsweep")


class Classifier(nn.Module):
    """Mean logits over the K branches, or the logits of each.

    Args:
        backbone: images to tokens (b t d).
        head: patch tokens (b n d), or all tokens if it reads the class token, to logits (b k l).
        append_class_token: give it the class token as one more token to pool.
    """

    def __init__(self, backbone: Backbone, head: Head, append_class_token: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: Head | nn.Identity = head
        place = ClassToken.first if head.class_token else ClassToken.last if append_class_token else ClassToken.absent
        self.read_by_head = ReadTokens(backbone.prefix, place)
        self.num_features, self.head_hidden_size = head.width, head.pooled_width
        self.in_chans = backbone.channels
        self.default_cfg: dict[str, Any] = {}  # timm's description of the input, for models with a timm name
        self.pretrained_cfg = self.default_cfg

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without classifiers."""
        return self.head.num_classes if isinstance(self.head, Head) else 0

    def forward(
        self, images: Float[Tensor, "b c y x"], per_head: bool = False
    ) -> Float[Tensor, "b l"] | Float[Tensor, "b k l"] | Float[Tensor, "b t d"]:
        """Return mean logits, with `per_head` those of each branch; all tokens if the head was removed."""
        tokens = self.forward_features(images)
        if not isinstance(self.head, Head):
            return tokens
        return _of_branches(self.head(self.read_by_head(tokens)), per_head)

    def forward_features(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Return the tokens, prefix tokens first."""
        return self.backbone.read(images)

    def forward_intermediates(self, images: Float[Tensor, "b c y x"], *options: Any, **named: Any) -> Any:
        """See `Backbone.forward_intermediates`."""
        return self.backbone.forward_intermediates(images, *options, **named)

    def prune_intermediate_layers(
        self, indices: int | list[int] | tuple[int, ...] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the layers that these features do not need; return their indices."""
        if prune_head:
            self.reset_classifier(0, "")
        return self.backbone.prune_intermediate_layers(indices, prune_norm)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Describe module, channels and stride of every feature."""
        return [{**info, "module": f"backbone.{info['module']}"} for info in self.backbone.feature_info()]

    def forward_head(
        self, tokens: Float[Tensor, "b t d"], pre_logits: bool = False
    ) -> Float[Tensor, "b _"] | Float[Tensor, "b t d"]:
        """Return mean logits, or with `pre_logits` the mean pooled vector; the tokens if the head was removed."""
        if not isinstance(self.head, Head):
            return tokens
        read = self.read_by_head(tokens)
        return (self.head.pool(read) if pre_logits else self.head(read)).mean(1)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers; 0 classes removes them, and with `global_pool=""` the whole head.

        Raises:
            UserError: the number of classes is invalid, another pooling is given, or the head was removed.
        """
        check_integer("num_classes", num_classes, 0)
        if global_pool == "" and num_classes == 0:
            self.head = nn.Identity()
        elif global_pool is not None:
            raise UserError(f"global_pool={global_pool}: expected None, as the head pools, or '' with num_classes=0")
        elif isinstance(self.head, Head):
            self.head.reset_classifier(num_classes)
            self.head.classifier.to(next(self.backbone.parameters()))
        elif num_classes:
            raise UserError(f"num_classes={num_classes}: expected 0, as the head was removed; build a new model")

    def get_classifier(self) -> nn.Module:
        return self.head.classifier if isinstance(self.head, Head) else self.head

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Adapt to images of another size; create optimizers after this.

        Args:
            img_size: side in pixels, or (rows, columns).

        Raises:
            UserError: the head's parameters depend on the number of tokens, or the backbone cannot take such images.
        """
        check_image_size("img_size", img_size)
        size = to_2tuple(img_size)
        if isinstance(self.head, Head) and self.head.fixed_tokens:
            raise UserError(
                f"set_input_size({size}): the head has a fixed number of tokens; build it with img_size={size}"
            )
        self.backbone.set_input_size(size)
        # timm reads the current size here, and rebuilds a saved model with it.
        self._traits = {**getattr(self, "_traits", {}), "img_size": size}
        self._model_args = {**getattr(self, "_model_args", {}), "img_size": size}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict of any layout that `headsweep.models.checkpoints.fit` reads, and log what it changes.

        Raises:
            CheckpointError: the state dict is of another model; this one is then unchanged.
        """
        own = {name: tensor.shape for name, tensor in self.state_dict().items()}
        given = {name: getattr(tensor, "shape", None) for name, tensor in state_dict.items()}
        headless = not isinstance(self.head, Head)
        partly = headless or (not strict and not own.keys().isdisjoint(given))
        recorded = recorded_architecture(state_dict)
        if partly or (given == own and recorded == recorded_architecture(self.state_dict())):
            for note in compute_as(recorded[0] if recorded else None, self.backbone):
                LOGGER.warning(note)
            return super().load_state_dict(state_dict, strict, assign)
        assert isinstance(self.head, Head)
        fitted = fit(self.backbone, self.head, state_dict)
        for note in (*fitted.notes, *compute_as(fitted.block, self.backbone)):
            LOGGER.warning(note)
        return super().load_state_dict(fitted.state, strict, assign)

    def no_weight_decay(self) -> set[str]:
        """Return the head's parameters that are one-dimensional per branch, and those that the backbone names."""
        backbone = {f"backbone.{name}" for name in self.backbone.no_weight_decay()}
        head = self.head.no_weight_decay() if isinstance(self.head, Head) else set()
        return backbone | {f"head.{name}" for name in head}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's blocks in the backward pass instead of storing their activations."""
        self.backbone.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups by depth, for timm's layer-wise learning rates."""
        return one_level_down(self.backbone.group_matcher(coarse), "backbone")


@torch.fx.wrap  # in a trace of FX, a flag is no boolean
def _of_branches(logits: Float[Tensor, "b k l"], per_head: bool) -> Float[Tensor, "b l"] | Float[Tensor, "b k l"]:
    return logits if per_head else logits.mean(1)
