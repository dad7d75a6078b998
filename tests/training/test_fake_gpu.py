"""Device errors and syncs of a GPU, detected without one: torch's fake tensors know devices and shapes, and no numbers.

An operation on tensors of two devices raises, and so does one that asks a tensor for a number, for which a training
loop would have to wait. (Gradients are not tested: autograd's engine needs a real device.)
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from composing import compose_run
from factories import default_head
from headsweep.heads import HEADS
from headsweep.models.build import model_of
from headsweep.training.evaluation import evaluate
from headsweep.training.objective import objective
from headsweep.training.ranks import Ranks


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor


class SummedError(Exception):
    """All batches were counted."""


class StopAtTheSum(Ranks):
    """The first number that evaluation may wait for is the sum over all batches."""

    def sum(self, values: Tensor) -> Tensor:
        assert values.device.type == "cuda"
        raise SummedError


@contextmanager
def on_a_fake_gpu(model: nn.Module) -> Iterator[nn.Module]:
    """The model there."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield model.to("cuda")
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def test_the_oracle_of_these_tests_sees_both():
    with FakeTensorMode():
        values = torch.rand(3, device="cuda")
        with pytest.raises(Exception, match="device"):
            values + torch.rand(3)
        with pytest.raises(DataDependentOutputException):
            values.sum().item()


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_forward_pass_with_its_objective_mixes_no_devices_and_waits_for_nothing(head):
    model = model_of(replace(compose_run("dataset=cifar100", "model.depth=1", "heads=2"), head=default_head(head)))
    with on_a_fake_gpu(model):
        images, targets = torch.rand(4, 3, 32, 32, device="cuda"), torch.rand(4, 100, device="cuda")
        loss = objective(model(images, per_head=True), targets, decorrelation=-0.1)
    assert loss.device.type == "cuda" and loss.shape == ()


@pytest.mark.slow
def test_an_evaluation_waits_only_for_its_sums():
    model = model_of(compose_run("dataset=cifar100", "model.depth=1", "heads=2"))
    with on_a_fake_gpu(model), pytest.raises(SummedError):
        images, labels = torch.rand(4, 3, 32, 32, device="cuda"), torch.zeros(4, dtype=torch.int64, device="cuda")
        evaluate(model, [Batch(images, labels)] * 2, nullcontext(), StopAtTheSum())
