"""A head computes in the dtype it is converted to, forward and backward."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from headsweep.heads import HEADS, Head, build_head
from headsweep.heads.layers.precision import in_product_dtype

# What a type's rounding costs, relative to float64; batch norms over six images widen it.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 0.01, torch.bfloat16: 0.08}
# Type, training, autocast: any two of them in every combination.
MODES = [
    (torch.float64, True, False), (torch.float64, False, True),
    (torch.float32, True, True), (torch.float32, False, False),
    (torch.float16, True, False), (torch.float16, False, True),
    (torch.bfloat16, True, True), (torch.bfloat16, False, False),
]  # fmt: skip


def make(name: str) -> Head:
    """A head away from its initial point, where gammas of 1e-4 take gradients out of float16's range."""
    torch.manual_seed(0)
    head = build_head(name, width=64, num_classes=10, heads=2, tokens=16)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head


def outcome(head: Head, x: Tensor, autocast: bool = False) -> list[Tensor]:
    """Logits, and the gradients of the tokens, and of all parameters as one vector."""
    x = x.clone().requires_grad_()
    half = torch.float16 if x.dtype is torch.float16 else torch.bfloat16  # torch's batch norm mixes neither
    with torch.autocast("cpu", half, enabled=autocast):
        logits = head(x)
    loss = logits.double().square().sum()
    by_tokens, *by_parameters = torch.autograd.grad(loss, [x, *head.parameters()])
    assert all(by.dtype == p.dtype for by, p in zip(by_parameters, head.parameters(), strict=True))
    return [logits, by_tokens, torch.cat([by.flatten() for by in by_parameters])]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "training", "autocast"), MODES, ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_a_converted_head_trains_and_evaluates(name: str, dtype: torch.dtype, training: bool, autocast: bool) -> None:
    head, x = make(name).to(dtype).train(training), torch.randn(6, 16, 64).to(dtype)
    exact = copy.deepcopy(head).double()
    expected, got = outcome(exact, x.double()), outcome(head, x, autocast)
    assert autocast or got[0].dtype is dtype
    tolerance = max(TOLERANCES[dtype], TOLERANCES[torch.bfloat16] if autocast else 0)
    for a, b in zip(got, expected, strict=True):
        assert (a.double() - b).norm() < tolerance * b.norm()


class Conversions(TorchDispatchMode):
    """Collects the dtypes that tensors of a shape are converted to."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.found = shape, list[torch.dtype]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._to_copy.default and args[0].shape == self.shape:
            self.found.append(kwargs["dtype"])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["ga", "seqattn"])
def test_tokens_that_are_read_twice_are_rounded_once_and_so_is_their_gradient(name: str) -> None:
    head, tokens = make(name), torch.randn(6, 16, 64, requires_grad=True)
    with Conversions((6, 16, 64)) as conversions:
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(tokens)
        logits.float().sum().backward()
    assert conversions.found == [torch.bfloat16, torch.float32]
    assert torch.equal(tokens.grad, tokens.grad.bfloat16().float())


def test_without_autocast_tokens_are_left_as_they_are() -> None:
    tokens = torch.randn(2, 3, 4)
    assert in_product_dtype(tokens) is tokens
