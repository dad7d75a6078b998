"""The interface of every head.

Legend: b images, n tokens, t tokens with the class token where the head reads it, d width, e pooled width, k branches
(heads in parallel), c classes.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.layers.stacked import (
    StackedBatchNorm,
    StackedLinear,
    add_converted_keys,
    drop_converted_keys,
    normalise_branches,
)

EPSILON = 1e-6  # of the batch norm of pooled vectors, as in MAE's and EP's probes


class Head(nn.Module, ABC):
    """Pools N tokens into one vector per branch and classifies each.

    A subclass is final: it implements `pool` and `token_weights` and takes its own options as keywords. All K branches
    are stacked: every parameter and buffer of a head, its running statistics included, has the branch as its first
    axis, or an axis of 1 where branches share it.

    Args:
        width: D, the width of a token.
        num_classes: C; 0 leaves the pooled vectors as they are.
        heads: K, the number of branches.
        tokens: N, the number of patch tokens of an image of the size that the model is built for.
        pooled_width: E, the width of what a branch pools and classifies; D by default.
    """

    # Given (b 1+n d), the backbone's class token first; otherwise patch tokens only.
    class_token: ClassVar[bool] = False
    fixed_tokens: ClassVar[bool] = False  # parameters depend on N; another number of tokens is refused

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, pooled_width: int | None = None) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"heads={heads}: expected an integer >= 1")
        self.width, self.heads, self.tokens = width, heads, tokens
        self.pooled_width = width if pooled_width is None else pooled_width
        self.pooled_norm: nn.Module | None = None
        self.reset_classifier(num_classes)

    @abstractmethod
    def pool(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b k e"]:
        """Reduce the tokens to one vector per branch.

        Raises:
            ValueError: the head has `fixed_tokens` and was built for another number of tokens.
        """

    @abstractmethod
    def token_weights(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b k n"] | None:
        """Return each patch token's share in what each branch pools: >= 0, with sum 1 over the tokens.

        For inspection of a head in evaluation mode; training never calls it. None if the head reads no patch token.
        Raises ValueError as `pool` does.
        """

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b k c"]:
        """Return the logits of each branch."""
        return self.classify(self.pool(tokens))

    def classify(self, pooled: Float[Tensor, "b k e"]) -> Float[Tensor, "b k c"]:
        """Return the logits of each branch for its pooled vectors."""
        if self.pooled_norm is not None:
            pooled = normalise_branches(self.pooled_norm, pooled.flatten(1)).unflatten(1, (self.heads, -1))
        return self.classifier(pooled)

    def normalise_pooled(self) -> None:
        """Normalise pooled vectors over the batch before the classifier, without gain and bias."""
        self.pooled_norm = StackedBatchNorm(self.heads, self.pooled_width, eps=EPSILON, affine=False)
        self.register_state_dict_post_hook(drop_converted_keys)
        self.register_load_state_dict_pre_hook(add_converted_keys)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifiers by newly initialised ones; 0 classes removes them. Raises ValueError if negative."""
        if num_classes < 0:
            raise ValueError(f"num_classes={num_classes}: expected an integer >= 0")
        self.num_classes = num_classes
        self.classifier = StackedLinear(self.heads, self.pooled_width, num_classes) if num_classes else nn.Identity()

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that are one-dimensional per branch: gains, biases, LayerScale, class tokens."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim == 2}

    def check_tokens(self, name: str, tokens: Float[Tensor, "b n d"]) -> None:
        """Raise ValueError unless the head, called `name`, was built for this number of tokens."""
        _check_count(name, tokens, self.tokens)


@torch.fx.wrap  # in a trace of FX, a shape is no number to compare
def _check_count(name: str, tokens: Float[Tensor, "b n d"], expected: int) -> None:
    if tokens.shape[1] != expected:
        raise ValueError(
            f"head={name}: expected N={expected} tokens, found {tokens.shape[1]}; build the model for this image size"
        )
