"""The one interface of every head.

Legend: b images, n tokens, d width, k branches (heads in parallel), c classes.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.stacked import StackedLinear


class Head(nn.Module, ABC):
    """Pools N tokens into one vector per branch and classifies each.

    A subclass is final: it implements `pool` and takes its own options as keywords. All K branches are stacked: every
    parameter and buffer of a head, its running statistics included, has the branch as its first axis.

    Args:
        width: D, the width of a token.
        num_classes: C; 0 leaves the pooled vectors as they are.
        heads: K, the number of branches.
    """

    def __init__(self, width: int, num_classes: int, heads: int) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"heads={heads}: want at least 1")
        self.width, self.heads = width, heads
        self.reset_classifier(num_classes)

    @abstractmethod
    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Reduce the tokens to one vector per branch."""

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k c"]:
        """Logits of each branch."""
        return self.classifier(self.pool(tokens))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifiers by newly drawn ones; 0 classes takes them away."""
        self.num_classes = num_classes
        self.classifier = StackedLinear(self.heads, self.width, num_classes) if num_classes else nn.Identity()

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are one-dimensional per branch: gains, biases, LayerScale."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim == 2}
