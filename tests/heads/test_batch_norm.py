"""Tools that freeze or convert batch norms work on gram heads, which then compute and load as before."""

import copy
from collections.abc import Callable

import pytest
import timm.layers
import timm.utils
import torch
from torch import Tensor, nn

from headsweep.heads import Head, build_head

Convert = Callable[[nn.Module], object]
NORMS = ("query.contraction_norm", "query.embedding_norm")


def freeze_and_unfreeze(head: nn.Module) -> None:
    timm.utils.freeze(head)
    timm.utils.unfreeze(head)


FREEZING: list[Convert] = [
    timm.utils.freeze,
    timm.layers.freeze_batch_norm_2d,
    lambda head: timm.utils.freeze(head, list(NORMS)),
    lambda head: timm.layers.freeze_batch_norm_2d(nn.SyncBatchNorm.convert_sync_batchnorm(head)),
]
CONVERTING: list[Convert] = [
    nn.SyncBatchNorm.convert_sync_batchnorm,
    timm.layers.convert_sync_batchnorm,
    freeze_and_unfreeze,
    lambda head: timm.layers.unfreeze_batch_norm_2d(timm.layers.freeze_batch_norm_2d(head)),
]


def make(name: str = "ga") -> Head:
    """A head whose running statistics are away from 0 and 1."""
    torch.manual_seed(0)
    head = build_head(name, width=32, num_classes=3, heads=2, tokens=4, gram_dim=16)
    head(tokens())
    return head


def tokens() -> Tensor:
    return torch.randn(6, 4, 32)


def statistics(head: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in head.state_dict().items() if "running" in name}


@pytest.mark.parametrize("convert", FREEZING)
@pytest.mark.parametrize("name", ["sg", "ga"])
def test_frozen_statistics_stay(name: str, convert: Convert) -> None:
    head, x = make(name), tokens()
    expected, before = head.eval()(x), statistics(head)
    convert(head)
    assert [module for module in head.modules() if isinstance(module, nn.BatchNorm2d)] == []
    torch.testing.assert_close(head.train()(x), expected)
    torch.testing.assert_close(statistics(head), before, rtol=0, atol=0)


@pytest.mark.parametrize("convert", CONVERTING)
@pytest.mark.parametrize("name", ["sg", "ga"])
def test_a_converted_head_trains_as_before(name: str, convert: Convert) -> None:
    head, x = make(name), tokens()
    converted = copy.deepcopy(head)
    convert(converted)
    torch.testing.assert_close(converted(x), head(x))
    torch.testing.assert_close(statistics(converted), statistics(head))
    converted(x).sum().backward()
    assert all(parameter.grad is not None for parameter in converted.parameters())


@pytest.mark.parametrize("convert", [*FREEZING, *CONVERTING])
def test_state_dicts_are_the_same_with_and_without_conversion(convert: Convert) -> None:
    head = make()
    converted, other = copy.deepcopy(head), make()
    convert(converted)
    state = head.state_dict()
    assert list(converted.state_dict()) == list(state)
    torch.testing.assert_close(dict(converted.state_dict()), dict(state), rtol=0, atol=0)
    assert converted.load_state_dict(other.state_dict()) == other.load_state_dict(converted.state_dict())
    converted.load_state_dict(converted.state_dict())
    copied, x = copy.deepcopy(converted), tokens()
    assert torch.equal(copied(x), converted(x))


def test_statistics_can_be_averaged_over_batches() -> None:
    head, batches = make(), [tokens() for _ in range(3)]
    torch.optim.swa_utils.update_bn(batches, head)
    contracted = [head.query._contract(batch).transpose(0, 1).flatten(1) for batch in batches]
    norm = head.query.contraction_norm
    torch.testing.assert_close(norm.running_mean.flatten(), torch.stack([c.mean(1) for c in contracted]).mean(0))
    torch.testing.assert_close(norm.running_var.flatten(), torch.stack([c.var(1) for c in contracted]).mean(0))
    assert norm.momentum == 0.1


def test_statistics_can_be_removed() -> None:
    head, x = make(), tokens()
    expected = head(x)
    torch.testing.assert_close(torch.func.replace_all_batch_norm_modules_(head).eval()(x), expected)


@pytest.mark.parametrize("name", ["sg", "ga"])
def test_no_images_are_evaluated(name: str) -> None:
    head = make(name).eval()
    assert head(tokens()[:0]).shape == (0, 2, 3) and head.token_weights(tokens()[:0]).shape == (0, 2, 4)
