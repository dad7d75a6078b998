import math
import re
from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
from torch import Tensor, nn

from headsweep.config.records.metric import MetricSpec
from headsweep.config.records.registry import Package, Registry
from headsweep.errors import UserError
from headsweep.training import evaluation
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


@pytest.mark.parametrize(("heads", "classes"), [(1, 10), (3, 10), (2, 3), (1, 2)])
def test_metrics_are_those_of_all_images_whatever_the_batches(heads, classes):
    logits, labels = torch.randn(50, heads, classes).double(), torch.randperm(50) % classes
    batches = [Batch(logits[i : i + 16], labels[i : i + 16]) for i in range(0, 50, 16)]  # the last is smaller
    actual = evaluate(Given(), batches, nullcontext(), Ranks())
    mean = logits.mean(1)
    best = mean.topk(min(5, classes)).indices
    expected = {
        "loss": F.cross_entropy(mean, labels).item(),
        "top1": (mean.argmax(-1) == labels).float().mean().item(),
        "top5": (best == labels[:, None]).any(-1).float().mean().item(),
    }
    expected["mean_per_class"] = balanced_accuracy_score(labels, mean.argmax(-1))
    scores = mean.double().softmax(-1)
    expected["auroc"] = roc_auc_score(labels, scores[:, 1] if classes == 2 else scores, multi_class="ovr")
    if heads > 1:
        for k in range(heads):
            expected[f"per_head/top1_{k + 1}"] = (logits[:, k].argmax(-1) == labels).float().mean().item()
    assert actual.metrics == pytest.approx(expected, rel=1e-6)
    assert actual.metrics["auroc"] == pytest.approx(expected["auroc"], rel=1e-12)
    assert actual.metrics["loss"] == pytest.approx(log_loss(labels, scores), rel=1e-12)
    assert actual.correct.tolist() == (mean.argmax(-1) == labels).tolist()


@pytest.mark.slow
def test_every_rank_gets_the_correctness_of_all_images():
    logits, labels = torch.randn(50, 2, 10), torch.randint(3, (50,))
    right = (logits.mean(1).argmax(-1) == labels).tolist()
    assert 0 < sum(right) < 50
    alone = evaluate(Given(), [Batch(logits, labels)], nullcontext(), Ranks())

    def work(ranks: Ranks) -> None:
        mine = torch.arange(ranks.rank, 50, ranks.count)  # 17, 17 and 16 of them
        batches = [Batch(logits[few], labels[few]) for few in mine.split(5)]
        actual = evaluate(Given(), batches, nullcontext(), ranks)
        assert actual.correct.tolist() == right
        assert actual.metrics == pytest.approx(alone.metrics, rel=1e-12)

    assert on_ranks(3, work) == [0, 0, 0]


def given(scores, labels, classes: int) -> dict[str, float]:
    logits = torch.tensor(scores, dtype=torch.float64)[:, None]
    assert logits.shape[-1] == classes
    return evaluate(Given(), [Batch(logits, torch.tensor(labels))], nullcontext(), Ranks()).metrics


def test_classes_without_images_are_left_out_of_means_over_classes():
    scores, labels = torch.randn(40, 4).tolist(), [number % 3 for number in range(40)]  # none of class 3
    actual = given(scores, labels, 4)
    softmax = torch.tensor(scores, dtype=torch.float64).softmax(-1)
    areas = [roc_auc_score([label == it for label in labels], softmax[:, it]) for it in range(3)]
    assert actual["auroc"] == pytest.approx(sum(areas) / 3, rel=1e-12)
    right = [best == label for best, label in zip(softmax.argmax(-1).tolist(), labels, strict=True)]
    shares = [sum(right[it::3]) / len(right[it::3]) for it in range(3)]
    assert actual["mean_per_class"] == pytest.approx(sum(shares) / 3, rel=1e-12)


def test_images_of_one_class_have_no_area_and_equal_scores_count_half():
    assert "auroc" not in given([[0.0, 1.0], [1.0, 0.0]], [1, 1], 2)
    assert given([[0.0, 0.0]] * 4, [0, 1, 1, 0], 2)["auroc"] == 0.5
    assert given([[1.0, 0.0], [0.0, 1.0]], [0, 1], 2)["auroc"] == 1.0


def test_scores_that_are_not_finite_have_no_finite_area():
    assert math.isnan(given([[math.nan, 0.0], [0.0, 1.0]], [0, 1], 2)["auroc"])


def test_the_area_is_left_out_where_its_scores_would_take_too_much_memory(monkeypatch):
    scores, labels = torch.randn(12, 3).tolist(), [number % 3 for number in range(12)]
    for most, is_known in ((36, True), (35, False)):
        monkeypatch.setattr("headsweep.training.evaluation.MOST_SCORES", most)
        assert ("auroc" in given(scores, labels, 3)) is is_known


def test_evaluation_leaves_no_gradient_and_uses_evaluation_mode():
    model = nn.Sequential(nn.Dropout(0.5))
    model.forward = lambda x, per_head: nn.functional.dropout(x, 0.5, model.training)
    logits = torch.randn(6, 1, 4)
    first = evaluate(model, [Batch(logits, torch.zeros(6).long())], nullcontext(), Ranks()).metrics
    assert first == evaluate(model, [Batch(logits, torch.zeros(6).long())], nullcontext(), Ranks()).metrics


def broken(scores, labels):
    raise KeyError("no such class")


@pytest.mark.parametrize(
    ("function", "reason"),
    [("broken", r"KeyError: 'no such class' \(.*test_evaluation.py:\d+\)"), ("argsort", "TypeError: only .*")],
)
def test_what_a_metric_of_a_package_raises_is_one_line(function, reason, monkeypatch):
    path = f"{__name__ if function == 'broken' else 'numpy'}:{function}"
    registry = Registry("headsweep.metrics", "metric", MetricSpec, {"mine": MetricSpec("mine", compute=path)})
    monkeypatch.setattr(registry, "package", lambda name: Package("own-metric", "1.0", "own_metric"))
    monkeypatch.setattr(evaluation, "METRICS", registry)
    batch = Batch(torch.randn(4, 1, 3), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(UserError) as caught:
        evaluate(Given(), [batch], nullcontext(), Ranks())
    assert re.fullmatch(rf"metric=mine: {reason}; correct it, or uninstall own-metric", str(caught.value))
    monkeypatch.setattr(registry, "package", lambda name: None)
    with pytest.raises((KeyError, TypeError)):  # a defect of headsweep keeps its traceback
        evaluate(Given(), [batch], nullcontext(), Ranks())
