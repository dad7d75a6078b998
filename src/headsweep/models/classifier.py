"""A backbone and a head as one model, with the manners of timm's models.

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
from headsweep.models.state_dicts import compute_as, fit, told_by

LOGGER = logging.getLogger("headsweep")


class Classifier(nn.Module):
    """The mean of the head's K logits, or each branch's own.

    Args:
        backbone: images to tokens (b t d).
        head: patch tokens (b n d), or all tokens if it reads the class token, to logits (b k l).
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: Head | nn.Identity = head
        self.num_features = self.head_hidden_size = head.width
        self.in_chans = backbone.channels
        self.default_cfg: dict[str, Any] = {}  # timm's description of the input, of a model that has a name there
        self.pretrained_cfg = self.default_cfg

    @property
    def num_classes(self) -> int:
        """Classes; 0 when the classifiers were taken away."""
        return self.head.num_classes if isinstance(self.head, Head) else 0

    def forward(
        self, images: Float[Tensor, "b c y x"], per_head: bool = False
    ) -> Float[Tensor, "b l"] | Float[Tensor, "b k l"] | Float[Tensor, "b t d"]:
        """Mean logits over the branches, or with `per_head` the logits of each; all tokens if the head is gone."""
        tokens = self.forward_features(images)
        if not isinstance(self.head, Head):
            return tokens
        return _of_branches(self.head(self.read_by_head(tokens)), per_head)

    def forward_features(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """The tokens, the prefix tokens before the patch tokens."""
        return self.backbone(images)

    def forward_intermediates(self, images: Float[Tensor, "b c y x"], *options: Any, **named: Any) -> Any:
        """The tokens and the features on the way to them; see `Backbone.forward_intermediates`."""
        return self.backbone.forward_intermediates(images, *options, **named)

    def prune_intermediate_layers(
        self, indices: int | list[int] | tuple[int, ...] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what these features do not need; their numbers, counted from the first."""
        if prune_head:
            self.reset_classifier(0, "")
        return self.backbone.prune_intermediate_layers(indices, prune_norm)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Module, channels and stride of every feature."""
        return [{**info, "module": f"backbone.{info['module']}"} for info in self.backbone.feature_info()]

    def forward_head(
        self, tokens: Float[Tensor, "b t d"], pre_logits: bool = False
    ) -> Float[Tensor, "b l"] | Float[Tensor, "b d"] | Float[Tensor, "b t d"]:
        """Mean logits, or with `pre_logits` the mean pooled vector; the tokens if the head is gone."""
        if not isinstance(self.head, Head):
            return tokens
        read = self.read_by_head(tokens)
        return (self.head.pool(read) if pre_logits else self.head(read)).mean(1)

    def read_by_head(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b _ d"]:
        """What the head is given: all tokens if it reads the class token, else the patch tokens."""
        return tokens if self.head.class_token else tokens[:, self.backbone.prefix :]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers; 0 classes takes them away, and with `global_pool=""` the whole head.

        Raises:
            UserError: no number of classes, another pooling is asked for, or classifiers of a head that is gone.
        """
        check_integer("num_classes", num_classes, 0)
        if global_pool == "" and num_classes == 0:
            self.head = nn.Identity()
        elif global_pool is not None:
            raise UserError(f"global_pool={global_pool}: the head pools; want none, or '' with num_classes=0")
        elif isinstance(self.head, Head):
            self.head.reset_classifier(num_classes)
            self.head.classifier.to(next(self.backbone.parameters()))
        elif num_classes:
            raise UserError(f"num_classes={num_classes}: the head was taken away; build the model anew")

    def get_classifier(self) -> nn.Module:
        """The stacked linear classifiers."""
        return self.head.classifier if isinstance(self.head, Head) else self.head

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Be ready for images of another size; an optimizer must be made after this.

        Args:
            img_size: side in pixels, or (rows, columns).

        Raises:
            UserError: the head's parameters depend on the number of tokens, or the backbone cannot take such images.
        """
        check_image_size("img_size", img_size)
        size = to_2tuple(img_size)
        if isinstance(self.head, Head) and self.head.fixed_tokens:
            raise UserError(
                f"set_input_size({size}): the head is tied to its number of tokens; build it with img_size={size}"
            )
        self.backbone.set_input_size(size)
        # What timm asks for the present size, and builds a saved model with.
        self._traits = {**getattr(self, "_traits", {}), "img_size": size}
        self._model_args = {**getattr(self, "_model_args", {}), "img_size": size}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict of ours, or of a layout that `headsweep.models.state_dicts` knows, and log what it changes.

        Raises:
            CheckpointError: the state dict is of another model; this one is then as it was.
        """
        own = {name: tensor.shape for name, tensor in self.state_dict().items()}
        given = {name: getattr(tensor, "shape", None) for name, tensor in state_dict.items()}
        headless = not isinstance(self.head, Head)
        partly = headless or (not strict and not own.keys().isdisjoint(given))
        told = told_by(state_dict)
        if partly or (given == own and told == told_by(self.state_dict())):
            for note in compute_as(told[0] if told else None, self.backbone):
                LOGGER.warning(note)
            return super().load_state_dict(state_dict, strict, assign)
        assert isinstance(self.head, Head)
        fitted = fit(self.backbone, self.head, state_dict)
        for note in (*fitted.notes, *compute_as(fitted.block, self.backbone)):
            LOGGER.warning(note)
        return super().load_state_dict(fitted.state, strict, assign)

    def no_weight_decay(self) -> set[str]:
        """Parameters of the head that are one-dimensional per branch, and what the backbone names."""
        backbone = {f"backbone.{name}" for name in self.backbone.no_weight_decay()}
        head = self.head.no_weight_decay() if isinstance(self.head, Head) else set()
        return backbone | {f"head.{name}" for name in head}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's blocks in the backward pass instead of keeping their activations."""
        self.backbone.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups by depth, for timm's layer-wise learning rates."""
        return one_level_down(self.backbone.group_matcher(coarse), "backbone")


@torch.fx.wrap  # a flag that FX traces is not yet true or false
def _of_branches(logits: Float[Tensor, "b k l"], per_head: bool) -> Float[Tensor, "b l"] | Float[Tensor, "b k l"]:
    return logits if per_head else logits.mean(1)
