"""The interface of heads that are fitted in one pass over the training tokens instead of being trained.

Legend: b images, t tokens with the class token where the head reads it, d width.
"""

from abc import abstractmethod
from collections.abc import Iterable

from jaxtyping import Float, Int
from torch import Tensor, nn

from headsweep.heads.base import Head


class FittedHead(Head):
    """A head of one branch, without parameters; `classify` compares pooled vectors with what it was fitted to.

    Before it is fitted, the logits of every image are 0. As it classifies by itself, it has no linear classifier.
    """

    @abstractmethod
    def fit(self, batches: Iterable[tuple[Float[Tensor, "b t d"], Int[Tensor, " b"]]]) -> None:
        """Replace what it was fitted to by the tokens and labels of all training images, given in order.

        Raises:
            UserError: an option does not suit these images.
        """

    def reset_classifier(self, num_classes: int) -> None:
        """See `Head.reset_classifier`."""
        if num_classes < 0:
            raise ValueError(f"num_classes={num_classes}: expected an integer >= 0")
        self.num_classes, self.classifier = num_classes, nn.Identity()
