import pytest
import torch
import torch.nn.functional as F

from headsweep.data.mixing import mixed, soft_targets
from headsweep.training.objective import objective


def test_one_head_is_cross_entropy():
    logits, labels = torch.randn(8, 1, 5), torch.randint(5, (8,))
    targets = F.one_hot(labels, 5).float()
    expected = F.cross_entropy(logits[:, 0], labels)
    assert torch.allclose(objective(logits, targets, decorrelation=0.0), expected)


def test_smoothed_targets_are_torch_label_smoothing():
    logits, labels = torch.randn(8, 1, 5), torch.randint(5, (8,))
    targets = F.one_hot(labels, 5) * 0.9 + 0.1 / 5
    expected = F.cross_entropy(logits[:, 0], labels, label_smoothing=0.1)
    assert torch.allclose(objective(logits, targets, decorrelation=0.0), expected)


@pytest.mark.parametrize("share", [1.0, 0.83, 0.5, 0.0])
def test_mixed_targets_are_torch_label_smoothing_of_the_mixture(share):
    """Upstream mixes one-hot targets and smooths in the loss; here targets are smoothed, then mixed."""
    logits, labels = torch.randn(8, 1, 5), torch.randint(5, (8,))
    one_hot = F.one_hot(labels, 5).float()
    expected = F.cross_entropy(logits[:, 0], one_hot * share + one_hot.roll(1, 0) * (1 - share), label_smoothing=0.1)
    targets = mixed(soft_targets(labels, 5, 0.1), share, 1 - share)
    assert torch.allclose(objective(logits, targets, decorrelation=0.0), expected)


@pytest.mark.parametrize("decorrelation", [0.0, -0.4, -0.8])
def test_sum_over_heads_plus_the_divergence_from_the_detached_ensemble(decorrelation):
    logits = torch.randn(8, 3, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.softmax(torch.randn(8, 5, dtype=torch.float64), -1)
    ensemble = F.log_softmax(logits.mean(1).detach(), -1)
    expected = sum(
        F.cross_entropy(logits[:, k], targets)
        + decorrelation * F.kl_div(F.log_softmax(logits[:, k], -1), ensemble, log_target=True, reduction="none").mean()
        for k in range(3)
    )
    actual = objective(logits, targets, decorrelation)
    assert torch.allclose(actual.double(), expected, atol=1e-6)
    (gradient,) = torch.autograd.grad(actual, logits, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    assert torch.allclose(gradient, expected_gradient, atol=1e-7)


def test_negative_decorrelation_rewards_heads_that_differ():
    same = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    apart = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])
    targets = torch.tensor([[0.5, 0.5]])
    gain = objective(apart, targets, -0.8) - objective(apart, targets, 0.0)
    assert gain < 0
    assert objective(same, targets, -0.8) == objective(same, targets, 0.0)
