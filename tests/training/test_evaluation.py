from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsweep.training.evaluation import evaluate
from headsweep.training.ranks import Ranks
from ranks import on_ranks


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor


class Given(nn.Module):
    """Takes logits (b, k, c) for images and returns them."""

    def forward(self, x, per_head):
        return x if per_head else x.mean(1)


@pytest.mark.parametrize(("heads", "classes"), [(1, 10), (3, 10), (2, 3)])
def test_metrics_are_those_of_all_images_whatever_the_batches(heads, classes):
    logits, labels = torch.randn(50, heads, classes), torch.randint(classes, (50,))
    batches = [Batch(logits[i : i + 16], labels[i : i + 16]) for i in range(0, 50, 16)]  # the last is smaller
    actual = evaluate(Given(), batches, nullcontext(), Ranks())
    mean = logits.mean(1)
    best = mean.topk(min(5, classes)).indices
    expected = {
        "loss": F.cross_entropy(mean, labels).item(),
        "top1": (mean.argmax(-1) == labels).float().mean().item(),
        "top5": (best == labels[:, None]).any(-1).float().mean().item(),
    }
    if heads > 1:
        for k in range(heads):
            expected[f"per_head/top1_{k + 1}"] = (logits[:, k].argmax(-1) == labels).float().mean().item()
    assert actual.metrics == pytest.approx(expected, rel=1e-6)
    assert actual.correct.tolist() == (mean.argmax(-1) == labels).tolist()


@pytest.mark.slow
def test_every_rank_gets_the_correctness_of_all_images():
    logits, labels = torch.randn(50, 2, 10), torch.randint(3, (50,))
    right = (logits.mean(1).argmax(-1) == labels).tolist()
    assert 0 < sum(right) < 50

    def work(ranks: Ranks) -> None:
        mine = torch.arange(ranks.rank, 50, ranks.count)  # 17, 17 and 16 of them
        batches = [Batch(logits[few], labels[few]) for few in mine.split(5)]
        assert evaluate(Given(), batches, nullcontext(), ranks).correct.tolist() == right

    assert on_ranks(3, work) == [0, 0, 0]


def test_evaluation_leaves_no_gradient_and_uses_evaluation_mode():
    model = nn.Sequential(nn.Dropout(0.5))
    model.forward = lambda x, per_head: nn.functional.dropout(x, 0.5, model.training)
    logits = torch.randn(6, 1, 4)
    first = evaluate(model, [Batch(logits, torch.zeros(6).long())], nullcontext(), Ranks()).metrics
    assert first == evaluate(model, [Batch(logits, torch.zeros(6).long())], nullcontext(), Ranks()).metrics
