"""Weighted votes of the nearest training images, by cosine similarity (DINO, arXiv 2104.14294, section 4.1).

Legend: b images, r images at once, n training images, e width, k neighbours, c classes.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headsweep.errors import UserError

AT_ONCE = 2**24  # similarities that are held at once: 64 MB
FLOOR = 1e-6  # added to the share of each class, whose logarithm is the logit: a class without a vote has a finite loss


class Neighbours(nn.Module):
    """Unit vectors of the training images (1 n e) and their labels (1 n).

    Args:
        k: neighbours that vote.
        temperature: the vote of a neighbour of cosine similarity s counts exp(s / temperature).
        width: E.
        num_classes: C.
    """

    vectors: Tensor
    labels: Tensor

    def __init__(self, k: int, temperature: float, width: int, num_classes: int) -> None:
        super().__init__()
        self.k, self.temperature, self.num_classes = k, temperature, num_classes
        self.register_buffer("vectors", torch.zeros(1, 0, width))
        self.register_buffer("labels", torch.zeros(1, 0, dtype=torch.long))

    def fit(self, batches: Iterable[tuple[Float[Tensor, "b e"], Int[Tensor, " b"]]]) -> None:
        """Replace the vectors; they need not have length 1. Raises UserError if there are fewer than k."""
        pairs = [(F.normalize(vectors.float(), dim=-1), labels) for vectors, labels in batches]
        vectors, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        if self.k > len(labels):
            raise UserError(f"head.k={self.k}: expected at most {len(labels)}, the number of training images")
        self.vectors, self.labels = vectors[None], labels[None]

    def forward(self, vectors: Float[Tensor, "b e"]) -> Float[Tensor, "b c"]:
        """Return log(share of the votes + FLOOR) of each class, in float32; zeros before `fit`."""
        count = self.labels.shape[1]
        if not count:
            return vectors.new_zeros(len(vectors), self.num_classes, dtype=torch.float32)
        unit = F.normalize(vectors.float(), dim=-1)
        return torch.cat([self._votes(some) for some in unit.split(max(1, AT_ONCE // count))])

    def _votes(self, unit: Float[Tensor, "r e"]) -> Float[Tensor, "r c"]:
        with torch.autocast(unit.device.type, enabled=False):
            similarities = unit @ self.vectors[0].T
        places = _nearest(similarities, self.k).nonzero()[:, 1].view(len(unit), self.k)
        shares = (similarities.gather(1, places) / self.temperature).softmax(-1)
        classes = F.one_hot(self.labels[0][places], self.num_classes)  # a scatter would not be deterministic on a GPU
        return ((shares[..., None] * classes).sum(1) + FLOOR).log()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
        """Load whatever number of training images the state has."""
        for name in ("vectors", "labels"):
            held, own = state.get(prefix + name), getattr(self, name)
            if held is not None and held.ndim == own.ndim and held.shape[2:] == own.shape[2:]:
                setattr(self, name, own.new_empty(held.shape))
        super()._load_from_state_dict(state, prefix, *others)


def _nearest(similarities: Float[Tensor, "r n"], k: int) -> Bool[Tensor, "r n"]:
    """Mark the k largest of each row; of equal ones the first, whereas `topk` leaves the choice open."""
    least = similarities.topk(k, dim=1).values[:, -1:]
    above, equal = similarities > least, similarities == least
    return above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
