"""`torch.func` transforms every head, also those with hand-written gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

from headsweep.heads import HEADS, build_head

Weights = dict[str, Tensor]


@pytest.fixture(params=HEADS)
def head(request: pytest.FixtureRequest) -> tuple[Weights, Callable[[Weights, Tensor], Tensor]]:
    """Parameters, and the loss that they have on tokens."""
    torch.manual_seed(0)
    module = build_head(request.param, width=32, num_classes=5, heads=2, tokens=4).double().eval()
    weights = {name: tensor.detach() for name, tensor in module.named_parameters()}
    return weights, lambda given, x: functional_call(module, given, (x,)).square().sum()


def tokens() -> Tensor:
    return torch.randn(3, 4, 32, dtype=torch.float64)


def by_autograd(loss: Callable[[Weights, Tensor], Tensor], weights: Weights, x: Tensor) -> Weights:
    given = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    return dict(zip(given, torch.autograd.grad(loss(given, x), list(given.values())), strict=True))


def test_gradients_of_each_image(head) -> None:
    weights, loss = head
    x = tokens()
    got = vmap(grad(lambda given, image: loss(given, image[None])), (None, 0))(weights, x)
    for i in range(len(x)):
        torch.testing.assert_close({name: g[i] for name, g in got.items()}, by_autograd(loss, weights, x[i : i + 1]))


@pytest.mark.slow
def test_first_and_second_derivatives(head) -> None:
    weights, loss = head
    x, direction = tokens(), tokens()
    gradient = grad(lambda y: loss(weights, y))
    torch.testing.assert_close(jacrev(lambda y: loss(weights, y))(x), gradient(x))
    torch.testing.assert_close(jvp(lambda y: loss(weights, y), (x,), (direction,))[1], (gradient(x) * direction).sum())
    step = 1e-5
    numeric = (gradient(x + step * direction) - gradient(x - step * direction)) / (2 * step)
    torch.testing.assert_close(jvp(gradient, (x,), (direction,))[1], numeric, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(grad(lambda y: (gradient(y) * direction).sum())(x), numeric, rtol=1e-5, atol=1e-7)
    image = x[:1]  # a tangent for each number takes memory
    torch.testing.assert_close(jacfwd(lambda y: loss(weights, y))(image), gradient(image))


def test_second_derivatives_outside_of_torch_func(head) -> None:
    """Also of a loss that is linear in the logits, where only the inputs of the gradient depend on the tokens."""
    weights, loss = head
    for power in (1, 2):
        x, direction = tokens().requires_grad_(), tokens()
        gradient = grad(lambda y, power=power: loss(weights, y) ** power)
        given = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
        (got,) = torch.autograd.grad(loss(given, x) ** power, x, create_graph=True)
        torch.testing.assert_close(got, gradient(x.detach()))
        (second,) = torch.autograd.grad((got * direction).sum(), x)
        torch.testing.assert_close(second, jvp(gradient, (x.detach(),), (direction,))[1])
