"""Votes of the nearest training images, held against scikit-learn's and a loop over images."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from headsweep.errors import UserError
from headsweep.heads import build_head
from headsweep.heads.knn import NeighbourHead
from headsweep.heads.layers import neighbours

CLASSES, WIDTH = 5, 8


def tokens(count: int, seed: int) -> Tensor:
    return torch.randn(count, 6, WIDTH, generator=torch.Generator().manual_seed(seed))


def labels(count: int) -> Tensor:
    return torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(2))


def fitted(train: Tensor, its: Tensor, name: str = "knn", k: int = 7, temperature: float = 0.2) -> NeighbourHead:
    head = build_head(name, width=WIDTH, num_classes=CLASSES, heads=1, tokens=6, k=k, temperature=temperature)
    assert list(head.parameters()) == []
    head.fit(zip(train.split(13), its.split(13), strict=True))
    return head.eval()


@pytest.mark.parametrize("name", ["knn", "knn_cls"])
def test_votes_are_those_of_scikit_learn(name):
    train, its, test = tokens(100, 0), labels(100), tokens(30, 1)
    train[:5, 0] *= 100  # the length of a vector has no effect
    head = fitted(train, its, name)
    of_images = [(it[:, 0] if name == "knn_cls" else it.mean(1)).double().numpy() for it in (train, test)]
    reference = KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.2))
    expected = torch.tensor(reference.fit(of_images[0], its.numpy()).predict_proba(of_images[1]))
    shares = head(test)[:, 0].exp().double() - neighbours.FLOOR
    torch.testing.assert_close(shares, expected, rtol=1e-4, atol=1e-5)


def test_votes_are_those_of_a_loop_over_images_however_many_are_compared_at_once(monkeypatch):
    train, its, test = tokens(40, 0), labels(40), tokens(9, 1)
    whole = fitted(train, its)(test)
    for row, image in enumerate(test.mean(1)):
        near = sorted((-float(torch.cosine_similarity(image, other, 0)), at) for at, other in enumerate(train.mean(1)))[
            :7
        ]
        votes = torch.zeros(CLASSES)
        for similarity, at in near:
            votes[its[at]] += torch.exp(torch.tensor(-similarity / 0.2))
        torch.testing.assert_close(whole[row, 0], (votes / votes.sum() + neighbours.FLOOR).log(), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(neighbours, "AT_ONCE", 41)
    torch.testing.assert_close(fitted(train, its)(test), whole)


def test_of_equally_near_images_the_first_vote():
    train, its = tokens(1, 0).expand(50, -1, -1), torch.tensor([3, 3, 1] + [0] * 47)
    shares = fitted(train, its, k=3)(tokens(2, 1))[:, 0].exp() - neighbours.FLOOR
    torch.testing.assert_close(shares, torch.tensor([[0, 1, 0, 2, 0]]).expand(2, -1) / 3, atol=1e-5, rtol=0)


def test_a_state_of_any_number_of_images_is_loaded():
    head, test = fitted(tokens(40, 0), labels(40)), tokens(9, 1)
    other = build_head("knn", width=WIDTH, num_classes=CLASSES, heads=1, tokens=6, k=7, temperature=0.2)
    assert torch.equal(other(test), torch.zeros(9, 1, CLASSES))
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(test), head(test))


def test_more_neighbours_than_images_are_one_line():
    with pytest.raises(UserError, match=r"head.k=7: expected at most 6, the number of training images"):
        fitted(tokens(6, 0), labels(6))
