"""Evaluation: loss, top-1 and top-5 of the ensemble, top-1 of each head, and which images the ensemble gets right."""

# b images, k heads, c classes

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from headsweep.tracking.metric_names import head_top1
from headsweep.training.batches import EvaluationBatch
from headsweep.training.ranks import Ranks


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a split."""

    metrics: dict[str, float]  # "loss", "top1", "top5" of the mean logits; with several heads "per_head/top1_1", ...
    correct: NDArray[np.bool_]  # in the order of the split: whether the largest mean logit is that of the label


def evaluate(
    model: nn.Module, batches: Iterable[EvaluationBatch], autocast: AbstractContextManager[None], ranks: Ranks
) -> Evaluation:
    """Evaluate on the images of all ranks; `batches` are this rank's, every `count`-th image of the split."""
    evaluator = Evaluator(model, autocast, ranks)
    for batch in batches:
        evaluator.add(batch)
    return evaluator.result()


class Evaluator:
    """Evaluates batch by batch.

    Accuracies are shares in [0, 1]. With fewer than five classes, top-5 is over all of them.
    """

    def __init__(self, model: nn.Module, autocast: AbstractContextManager[None], ranks: Ranks) -> None:
        """`model` changes to evaluation mode."""
        self._model, self._autocast, self._ranks = model.eval(), autocast, ranks
        self._sums: Tensor | None = None
        self._hits: list[Tensor] = []  # both stay on the device until the end

    def add(self, batch: EvaluationBatch) -> None:
        """Evaluate a batch of this rank."""
        with torch.inference_mode(), self._autocast:
            logits = self._model(batch.images, per_head=True).double()
        best = logits.mean(dim=1).topk(min(5, logits.shape[-1]), dim=-1).indices == batch.labels[:, None]
        counts = _counts(logits, batch.labels, best)
        self._sums = counts if self._sums is None else self._sums + counts
        self._hits.append(best[:, 0])

    def result(self) -> Evaluation:
        """Return the metrics of all ranks' batches."""
        assert self._sums is not None, "a split is never empty"
        images, *totals = self._ranks.sum(self._sums).tolist()
        values = [total / images for total in totals]
        heads = len(values) - 3
        names = ["loss", "top1", "top5", *(head_top1(k + 1) for k in range(heads))]
        metrics = dict(zip(names[: 3 if heads == 1 else None], values, strict=False))
        return Evaluation(metrics, _in_order(torch.cat(self._hits).cpu().numpy(), self._ranks))


def _in_order(correct: NDArray[np.bool_], ranks: Ranks) -> NDArray[np.bool_]:
    """Interleave those of all ranks, image by image."""
    shares = ranks.gather(correct)
    whole = np.empty(sum(map(len, shares)), dtype=np.bool_)
    for rank, share in enumerate(shares):
        whole[rank :: ranks.count] = share
    return whole


def _counts(logits: Tensor, labels: Tensor, best: Tensor) -> Tensor:
    """Sums over a batch: images, loss, top-1 hits, top-5 hits, top-1 hits of each head; (4 + k) in float64.

    `best` marks the correct class among the five with the largest mean logits: (b 5).
    """
    per_head = logits.argmax(dim=-1) == labels[:, None]
    loss = F.cross_entropy(logits.mean(dim=1), labels, reduction="sum")
    images = torch.full_like(loss, len(labels))  # new_tensor would synchronise with the GPU
    return torch.cat([torch.stack([images, loss, best[:, 0].sum(), best.sum()]), per_head.sum(dim=0)]).double()
