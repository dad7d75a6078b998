"""A backbone and a head as one model, with the manners of timm's models.

Legend: b images, c channels, y x rows and columns of pixels, n tokens, d width, k branches, l classes.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads import Head
from headsweep.models.cct import CCT


class Classifier(nn.Module):
    """The mean of the head's K logits, or each branch's own.

    Args:
        backbone: images to tokens (b n d).
        head: tokens to logits (b k l).
        default_cfg: timm's description of the input (size, mean, names of first and last layer, ...).
    """

    def __init__(self, backbone: CCT, head: Head, default_cfg: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.default_cfg = self.pretrained_cfg = default_cfg or {}
        self.num_features = self.head_hidden_size = head.width

    @property
    def num_classes(self) -> int:
        """Classes; 0 when the classifiers were taken away."""
        return self.head.num_classes

    def forward(
        self, images: Float[Tensor, "b c y x"], per_head: bool = False
    ) -> Float[Tensor, "b l"] | Float[Tensor, "b k l"]:
        """Mean logits over the branches, or with `per_head` the logits of each."""
        logits = self.head(self.forward_features(images))
        return logits if per_head else logits.mean(1)

    def forward_features(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n d"]:
        """The tokens that the head sees."""
        return self.backbone(images)

    def forward_head(
        self, tokens: Float[Tensor, "b n d"], pre_logits: bool = False
    ) -> Float[Tensor, "b l"] | Float[Tensor, "b d"]:
        """Mean logits, or with `pre_logits` the mean pooled vector."""
        return (self.head.pool(tokens) if pre_logits else self.head(tokens)).mean(1)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers; 0 classes takes them away. The pooling is the head's and cannot be changed."""
        if global_pool is not None:
            raise ValueError(f"global_pool={global_pool}: the head pools; choose another head instead")
        self.head.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The stacked linear classifiers."""
        return self.head.classifier

    def no_weight_decay(self) -> set[str]:
        """Parameters of the head that are one-dimensional per branch; timm sees to those of the backbone."""
        return {f"head.{name}" for name in self.head.no_weight_decay()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping their activations."""
        self.backbone.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups by depth, for timm's layer-wise learning rates."""
        blocks = [(r"^backbone\.blocks\.(\d+)", None), (r"^backbone\.norm", (99999,))]
        return {
            "stem": r"^backbone\.(?:tokenizer|positions)",
            "blocks": r"^backbone\.blocks\.(\d+)" if coarse else blocks,
        }
