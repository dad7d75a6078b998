"""Sums over batches equal the same quantities computed from all images at once."""

import math

import pytest
import torch
from torch import Tensor

from headsweep.errors import UserError
from headsweep.inspection.diversity import MEANING, Diversity

HEADS, CLASSES, WIDTH = 3, 4, 5


def outputs(images: int = 97, heads: int = HEADS) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, features and labels; heads have a part in common, and features lie far from zero."""
    torch.manual_seed(images)
    logits = 2 * torch.randn(images, 1, CLASSES) + torch.randn(images, heads, CLASSES)
    pooled = 1e5 + (torch.randn(images, 1, WIDTH) + torch.randn(images, heads, WIDTH)).double()
    return logits, pooled, torch.randint(CLASSES, (images,))


def summed(logits: Tensor, pooled: Tensor, labels: Tensor, batch: int = 10) -> Diversity:
    diversity = Diversity(*pooled.shape[1:])
    for parts in zip(logits.split(batch), pooled.split(batch), labels.split(batch), strict=True):
        diversity.add(*parts)
    return diversity


def assert_close(got: object, expected: Tensor) -> None:
    torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), expected.double(), rtol=0, atol=1e-10)


def plain_cka(x: Tensor, y: Tensor) -> Tensor:
    """Kornblith et al. 2019, equation 3, by way of the similarities between images."""
    one, other = ((z - z.mean(0)) @ (z - z.mean(0)).T for z in (x, y))
    return (one * other).sum() / (one.square().sum() * other.square().sum()).sqrt()


def test_accuracies() -> None:
    logits, pooled, labels = outputs()
    diversity = summed(logits, pooled, labels)
    right = [
        [int(image[k].argmax()) == int(label) for image, label in zip(logits, labels, strict=True)]
        for k in range(HEADS)
    ]
    together = sum(int(image.mean(0).argmax()) == int(label) for image, label in zip(logits, labels, strict=True)) / 97
    own = [sum(hits) / 97 for hits in right]
    assert diversity.top1() == pytest.approx(own, abs=1e-12)
    metrics = diversity.metrics()
    assert metrics["top1"] == pytest.approx(together, abs=1e-12)
    assert metrics["ensemble_gain"] == pytest.approx(together - sum(own) / HEADS, abs=1e-12)
    assert metrics["gain_over_best"] == pytest.approx(together - max(own), abs=1e-12)
    assert metrics["any_top1"] == pytest.approx(sum(map(any, zip(*right, strict=True))) / 97, abs=1e-12)


def test_disagreement_is_the_share_of_images_with_different_classes() -> None:
    logits, pooled, labels = outputs()
    guesses = logits.argmax(2).T.tolist()
    expected = [[sum(a != b for a, b in zip(one, other, strict=True)) / 97 for other in guesses] for one in guesses]
    assert_close(summed(logits, pooled, labels).matrices()["disagreement"], torch.tensor(expected, dtype=torch.float64))


def test_kl_is_directed_from_the_row_to_the_column() -> None:
    logits, pooled, labels = outputs()
    p = logits.double().softmax(2)
    expected = torch.stack(
        [torch.stack([(p[:, i] * (p[:, i] / p[:, j]).log()).sum(1).mean() for j in range(HEADS)]) for i in range(HEADS)]
    )
    got = summed(logits, pooled, labels).matrices()["kl"]
    assert_close(got, expected)
    assert got[0][1] != pytest.approx(got[1][0], rel=1e-3) and got[1][1] == 0


def test_cka_is_that_of_all_features_at_once() -> None:
    logits, pooled, labels = outputs()
    expected = torch.stack(
        [torch.stack([plain_cka(pooled[:, i], pooled[:, j]) for j in range(HEADS)]) for i in range(HEADS)]
    )
    assert_close(summed(logits, pooled, labels).matrices()["cka"], expected)


def test_cka_does_not_change_with_rotation_scale_and_shift() -> None:
    logits, pooled, labels = outputs(heads=2)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64)).Q
    turned = torch.stack([pooled[:, 0].double(), 3 * pooled[:, 0].double() @ rotation - 1000], 1)
    assert summed(logits, turned, labels).metrics()["cka"] == pytest.approx(1, abs=1e-10)


def test_means_are_over_pairs_of_different_heads() -> None:
    diversity = summed(*outputs())
    for name, matrix in diversity.matrices().items():
        between = [matrix[i][j] for i in range(HEADS) for j in range(HEADS) if i != j]
        assert diversity.metrics()[name] == pytest.approx(sum(between) / len(between), abs=1e-12)


def test_the_size_of_batches_does_not_matter() -> None:
    at_once, in_parts = summed(*outputs(), batch=97), summed(*outputs(), batch=7)
    assert at_once.metrics() == pytest.approx(in_parts.metrics(), abs=1e-10)
    assert at_once.images == in_parts.images == 97


def test_one_head_has_no_pairwise_metrics() -> None:
    metrics = summed(*outputs(heads=1)).metrics()
    assert set(metrics) == {"top1", "ensemble_gain", "gain_over_best", "any_top1"}
    assert metrics["ensemble_gain"] == metrics["gain_over_best"] == 0


def test_features_that_never_change_have_no_similarity() -> None:
    logits, pooled, labels = outputs(heads=2)
    pooled[:, 1] = 0.1
    diversity = summed(logits, pooled, labels)
    assert math.isnan(diversity.matrices()["cka"][0][1]) and "cka" not in diversity.metrics()


def test_every_number_has_a_name() -> None:
    assert set(MEANING) == set(summed(*outputs()).metrics())


def test_more_heads_than_memory_are_refused() -> None:
    with pytest.raises(UserError, match="100 heads of width 256 are too many to compare; expected at most 64"):
        Diversity(100, 256)
