"""Diversity of a model's heads, from sums over batches: features of images are not stored.

Letters: b images of a batch, k heads, c classes, d width, f = k d features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headsweep.errors import UserError

MEANING = {
    "top1": "share of images that the ensemble, the mean of the heads' logits, classifies rightly",
    "ensemble_gain": "top1 minus the mean of the heads' own top-1",
    "gain_over_best": "top1 minus the best head's top-1",
    "any_top1": "share of images that at least one head classifies rightly",
    "disagreement": "share of images on which heads i and j predict different classes (arXiv 1912.02757, section 4.2)",
    "kl": "mean over images of KL(p_i || p_j), in nats, p being the heads' softmax (Kullback and Leibler 1951)",
    "cka": "linear CKA of the heads' pooled features, 1 being the same up to rotation and scale (arXiv 1905.00414)",
}
MOST_FEATURES = 16_384  # K D; their products then take 2 GiB


class Diversity:
    """Sums over the batches that were added.

    Args:
        heads: K.
        width: D, of the pooled features.

    Raises:
        UserError: there are more than MOST_FEATURES features.
    """

    def __init__(self, heads: int, width: int) -> None:
        if heads * width > MOST_FEATURES:
            raise UserError(
                f"{heads} heads of width {width} are too many to compare; expected at most {MOST_FEATURES // width}"
            )
        self.heads, self.width, self.images = heads, width, 0
        self._hits = self._zeros(heads)
        self._ensemble, self._any = self._zeros(), self._zeros()
        self._disagreements, self._cross_entropies = self._zeros(heads, heads), self._zeros(heads, heads)
        self._origin: Tensor | None = None  # of one image: avoids variances as differences of large numbers
        self._features, self._products = self._zeros(heads * width), self._zeros(heads * width, heads * width)

    def add(self, logits: Tensor, pooled: Tensor, labels: Tensor) -> None:
        """Add logits (b k c), pooled features (b k d) and labels (b), on the CPU; computed in float64."""
        logits, features = logits.double(), pooled.double().flatten(1)
        guesses = logits.argmax(2)
        right = guesses == labels[:, None]
        self.images += len(labels)
        self._hits += right.sum(0)
        self._any += right.any(1).sum()
        self._ensemble += (logits.mean(1).argmax(1) == labels).sum()
        self._disagreements += (guesses[:, :, None] != guesses[:, None]).sum(0)
        logs = logits.log_softmax(2)
        self._cross_entropies -= torch.einsum("bic,bjc->ij", logs.exp(), logs)
        if self._origin is None:
            self._origin = features[0]
        features = features - self._origin
        self._features += features.sum(0)
        self._products += features.T @ features

    def top1(self) -> list[float]:
        """Of each head."""
        return (self._hits / self.images).tolist()

    def matrices(self) -> dict[str, list[list[float]]]:
        """Name -> (k k); NaN where a head's features are the same for all images."""
        entropies = self._cross_entropies.diagonal()[:, None]
        kl = ((self._cross_entropies - entropies) / self.images).clamp(min=0)  # below 0 only by rounding
        return {"disagreement": (self._disagreements / self.images).tolist(), "kl": kl.tolist(), "cka": self._cka()}

    def metrics(self) -> dict[str, float]:
        """Name -> value; the means over pairs of different heads are left out where they are undefined."""
        own, ensemble = self._hits / self.images, (self._ensemble / self.images).item()
        single = {
            "top1": ensemble,
            "ensemble_gain": ensemble - own.mean().item(),
            "gain_over_best": ensemble - own.max().item(),
            "any_top1": (self._any / self.images).item(),
        }
        means = {name: _mean_over_pairs(matrix) for name, matrix in self.matrices().items()}
        return single | {name: mean for name, mean in means.items() if mean == mean}

    def _cka(self) -> list[list[float]]:
        """||X_i^T X_j||^2 / (||X_i^T X_i|| ||X_j^T X_j||), X centred; Frobenius norms."""
        centred = self._products - torch.outer(self._features, self._features) / self.images
        blocks = centred.view(self.heads, self.width, self.heads, self.width)
        similarity = blocks.square().sum((1, 3))
        own = similarity.diagonal().sqrt()
        return (similarity / torch.outer(own, own)).tolist()

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)


def _mean_over_pairs(matrix: Sequence[Sequence[float]]) -> float:
    """NaN if there is one head."""
    between = torch.tensor(matrix, dtype=torch.float64)[~torch.eye(len(matrix), dtype=torch.bool)]
    return between.mean().item()
