"""The `knn` and `knn_cls` heads: nearest training images vote, the training-free evaluation of DINO (arXiv 2104.14294).

Legend: b images, t tokens with the class token where the head reads it, n patch tokens, d width.
"""

from collections.abc import Iterable
from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor

from headsweep.heads.fitted import FittedHead
from headsweep.heads.layers.neighbours import Neighbours


class NeighbourHead(FittedHead):
    """Classifies one pooled vector of an image by those of the training images.

    Args:
        width: D.
        num_classes: C.
        heads: K, which is 1.
        tokens: N; any other number works too.
        k: neighbours that vote.
        temperature: a neighbour of cosine similarity s counts exp(s / temperature).
    """

    def __init__(
        self, width: int, num_classes: int, heads: int, tokens: int, *, k: int = 20, temperature: float = 0.07
    ) -> None:
        super().__init__(width, num_classes, heads, tokens)
        if heads != 1:
            raise ValueError(f"heads={heads}: expected 1, as branches would be equal")
        if k < 1 or temperature <= 0:
            raise ValueError(f"k={k}, temperature={temperature}: expected k >= 1 and temperature > 0")
        self.neighbours = Neighbours(k, temperature, width, num_classes)

    def fit(self, batches: Iterable[tuple[Float[Tensor, "b t d"], Int[Tensor, " b"]]]) -> None:
        """See `FittedHead.fit`."""
        self.neighbours.fit((self.pool(tokens)[:, 0], labels) for tokens, labels in batches)

    def classify(self, pooled: Float[Tensor, "b 1 d"]) -> Float[Tensor, "b 1 c"]:
        """Return the logarithm of each class's share of the votes."""
        return self.neighbours(pooled[:, 0])[:, None] if self.num_classes else pooled


@final
class KnnHead(NeighbourHead):
    """Compares mean patch tokens."""

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b 1 d"]:
        """Return the mean token."""
        return tokens.mean(1, keepdim=True)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b 1 n"]:
        """Return 1/N for each token."""
        batch, count, _ = tokens.shape
        return tokens.new_full((batch, 1, count), 1 / count)


@final
class KnnClsHead(NeighbourHead):
    """Compares class tokens, as DINO does."""

    class_token: ClassVar[bool] = True

    def pool(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b 1 d"]:
        """Return the class token."""
        return tokens[:, :1]

    def token_weights(self, tokens: Float[Tensor, "b t d"]) -> None:
        """Return None: it reads no patch token."""
