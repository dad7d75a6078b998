"""Evaluation of the ensemble on a split: loss, accuracies, AUROC, and which images it classifies correctly.

Also top-1 of each head. Sums are streamed; of each image only its correctness is kept, and, for AUROC, its scores.
"""

# b images, k heads, c classes

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from headsweep.config.records.metric import METRICS
from headsweep.errors import UserError
from headsweep.loading import described, load_function
from headsweep.tracking.metric_names import MOST_SCORES, head_top1
from headsweep.training.batches import EvaluationBatch
from headsweep.training.ranks import Ranks

Forward = Callable[[Tensor], Tensor]  # images, as in `EvaluationBatch`, to the logits of each head (b k c)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a split."""

    # "loss", "top1", "top5", "mean_per_class", "auroc" and those of packages, of the mean logits; with several heads
    # "per_head/top1_1", ...
    metrics: dict[str, float]
    correct: NDArray[np.bool_]  # in the order of the split: whether the largest mean logit is that of the label


def evaluate(
    model: nn.Module, batches: Iterable[EvaluationBatch], autocast: AbstractContextManager[None], ranks: Ranks
) -> Evaluation:
    """Evaluate on the images of all ranks; `batches` are this rank's, every `count`-th image of the split."""
    evaluator = Evaluator(eager_forward(model, autocast), ranks)
    for batch in batches:
        evaluator.add(batch)
    return evaluator.result()


def eager_forward(model: nn.Module, autocast: AbstractContextManager[None]) -> Forward:
    """Return what maps images to the logits of each head (b k c); `model` changes to evaluation mode."""
    model.eval()

    def forward(images: Tensor) -> Tensor:
        with torch.inference_mode(), autocast:
            return model(images, per_head=True)

    return forward


class Evaluator:
    """Evaluates batch by batch.

    Accuracies are shares in [0, 1]. With fewer than five classes, top-5 is over all of them. The mean per class is over
    the classes that the split has. There is no "auroc", and no metric of a package, for more than MOST_SCORES images x
    classes; no "auroc" for a single class in the split.
    """

    def __init__(self, forward: Forward, ranks: Ranks) -> None:
        self._forward, self._ranks = forward, ranks
        self._sums: Tensor | None = None
        self._heads, self._classes = 0, 0
        self._hits: list[Tensor] = []  # these stay on the device until the end
        self._scores = _Scores()

    def add(self, batch: EvaluationBatch) -> None:
        """Evaluate a batch of this rank."""
        logits = self._forward(batch.images).double()
        self._heads, self._classes = logits.shape[1:]
        mean = logits.mean(dim=1)
        best = mean.topk(min(5, self._classes), dim=-1).indices == batch.labels[:, None]
        counts = _counts(logits, batch.labels, best)
        self._sums = counts if self._sums is None else self._sums + counts
        self._hits.append(best[:, 0])
        self._scores.add(mean, batch.labels)

    def result(self) -> Evaluation:
        """Return the metrics of all ranks' batches."""
        assert self._sums is not None, "a split is never empty"
        images, *totals = self._ranks.sum(self._sums).tolist()
        values = [total / images for total in totals[: 3 + self._heads]]
        names = ["loss", "top1", "top5", *(head_top1(k + 1) for k in range(self._heads))]
        metrics = dict(zip(names[: 3 if self._heads == 1 else None], values, strict=False))
        classes = self._classes
        metrics["mean_per_class"] = _mean_per_class(totals[-2 * classes : -classes], totals[-classes:])
        if images * classes <= MOST_SCORES:
            metrics |= self._scores.metrics(self._ranks)
        return Evaluation(metrics, _in_order(torch.cat(self._hits).cpu().numpy(), self._ranks))


class _Scores:
    """The probabilities of the images of this rank, as long as these are at most MOST_SCORES."""

    def __init__(self) -> None:
        self._scores: list[Tensor] = []  # (b c) float64 each
        self._labels: list[Tensor] = []
        self._count = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch of mean logits (b c)."""
        self._count += logits.numel()
        if self._count > MOST_SCORES:
            self._scores, self._labels = [], []
        else:
            self._scores.append(logits.softmax(dim=-1))
            self._labels.append(labels)

    def metrics(self, ranks: Ranks) -> dict[str, float]:
        """Return name -> value on the images of all ranks, in whatever order, without those that are undefined."""
        mine = torch.cat(self._scores).cpu().numpy(), torch.cat(self._labels).cpu().numpy()
        scores, labels = map(np.concatenate, zip(*ranks.gather(mine), strict=True))
        computed = {name: spec.compute for name, spec in METRICS.items() if spec.compute}
        values = {name: _computed(name, path, scores, labels) for name, path in computed.items()}
        return {name: value for name, value in values.items() if value is not None}


def _computed(name: str, path: str, scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    """Return a metric; None where it is undefined. Raises UserError for what the function of a package raises."""
    compute = load_function(f"metric={name}", path)
    try:
        value = compute(scores, labels)
        return None if value is None else float(value)
    except (Exception, SystemExit) as error:
        if (package := METRICS.package(name)) is None:
            raise
        reason = described(error, compute.__module__)
        raise UserError(f"metric={name}: {reason}; correct it, or uninstall {package.distribution}") from error


def _mean_per_class(hits: Sequence[float], images: Sequence[float]) -> float:
    """Return the mean accuracy of the classes that have images."""
    accuracies = [right / count for right, count in zip(hits, images, strict=True) if count]
    return fmean(accuracies)


def _in_order(correct: NDArray[np.bool_], ranks: Ranks) -> NDArray[np.bool_]:
    """Interleave those of all ranks, image by image."""
    shares = ranks.gather(correct)
    whole = np.empty(sum(map(len, shares)), dtype=np.bool_)
    for rank, share in enumerate(shares):
        whole[rank :: ranks.count] = share
    return whole


def _counts(logits: Tensor, labels: Tensor, best: Tensor) -> Tensor:
    """Sums over a batch, (4 + k + 2c) in float64.

    Images, loss, top-1 hits, top-5 hits, top-1 hits of each head, top-1 hits of each class, images of each class.

    `best` marks the correct class among the five with the largest mean logits: (b 5).
    """
    per_head = logits.argmax(dim=-1) == labels[:, None]
    loss = F.cross_entropy(logits.mean(dim=1), labels, reduction="sum")
    images = torch.full_like(loss, len(labels))  # new_tensor would synchronise with the GPU
    is_of_class = labels[:, None] == torch.arange(logits.shape[-1], device=labels.device)  # (b c)
    by_class = [(is_of_class & best[:, :1]).sum(dim=0), is_of_class.sum(dim=0)]
    return torch.cat([torch.stack([images, loss, best[:, 0].sum(), best.sum()]), per_head.sum(dim=0), *by_class])
