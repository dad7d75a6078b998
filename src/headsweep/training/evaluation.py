"""Evaluation: loss, top-1 and top-5 of the ensemble, and top-1 of each head."""

# b images, k heads, c classes

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsweep.training.batches import EvaluationBatch
from headsweep.training.ranks import Ranks


def evaluate(
    model: nn.Module, batches: Iterable[EvaluationBatch], autocast: AbstractContextManager[None], ranks: Ranks
) -> Iterator[tuple[str, float]]:
    """Yield (name, value): "loss", "top1", "top5" of the mean logits; with several heads "per_head/top1_1", ...

    Accuracies are shares in [0, 1] of the images of all ranks. With fewer than five classes, top-5 is over all of them.
    """
    model.eval()
    sums: Tensor | None = None
    for batch in batches:
        with torch.inference_mode(), autocast:
            logits = model(batch.images, per_head=True).double()
        counts = _counts(logits, batch.labels)
        sums = counts if sums is None else sums + counts
    assert sums is not None, "a split is never empty"
    images, *totals = ranks.sum(sums).tolist()
    values = [total / images for total in totals]
    heads = len(values) - 3
    names = ["loss", "top1", "top5", *(f"per_head/top1_{k + 1}" for k in range(heads))]
    yield from zip(names[: 3 if heads == 1 else None], values, strict=False)


def _counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums over a batch: images, loss, top-1 hits, top-5 hits, top-1 hits of each head; (4 + k) in float64."""
    ensemble = logits.mean(dim=1)
    best = ensemble.topk(min(5, ensemble.shape[-1]), dim=-1).indices == labels[:, None]
    per_head = logits.argmax(dim=-1) == labels[:, None]
    loss = F.cross_entropy(ensemble, labels, reduction="sum")
    images = loss.new_tensor(len(labels))
    return torch.cat([torch.stack([images, loss, best[:, 0].sum(), best.sum()]), per_head.sum(dim=0)]).double()
