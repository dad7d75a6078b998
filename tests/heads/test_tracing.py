"""Every head compiles to one graph, exports for inference and traces by FX, with unchanged results."""

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from headsweep.heads import HEADS, Head, build_head

TOKENS, WIDTH = 16, 64


@pytest.fixture(autouse=True)
def shapes_unchecked() -> Iterator[None]:
    """Turn off the run-time checks of annotations in tests: they cannot be traced."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(params=HEADS)
def head(request: pytest.FixtureRequest) -> Head:
    torch.manual_seed(0)
    return build_head(request.param, width=WIDTH, num_classes=10, heads=2, tokens=TOKENS)


def images(count: int) -> Tensor:
    return torch.randn(count, TOKENS, WIDTH)


def gradients(head: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Logits, and the gradients of the head's parameters."""
    logits = run(x)
    return [logits.detach(), *torch.autograd.grad(logits.square().sum(), list(head.parameters()))]


@pytest.mark.slow
def test_compiles_as_one_graph(head: Head) -> None:
    torch.compiler.reset()
    x = images(4)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(head, compiled, x), gradients(head, head, x))


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False])
def test_exports_for_any_number_of_images(head: Head, strict: bool) -> None:
    head(images(4))  # moves running statistics away from 0 and 1
    sizes = ({0: torch.export.Dim("images")},)
    exported = torch.export.export(head.eval(), (images(4),), dynamic_shapes=sizes, strict=strict)
    x = images(7)
    torch.testing.assert_close(exported.module()(x), head(x))


@pytest.mark.parametrize("training", [True, False])
def test_fx_traces(head: Head, training: bool) -> None:
    traced = torch.fx.symbolic_trace(head.train(training))
    x = images(4)
    torch.testing.assert_close(gradients(head, traced, x), gradients(head, head, x))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(traced(x), head(x))
