"""The head that is checked, and what its checks share.

Legend: b images, n tokens, t tokens with the class token where the head reads it, d width, k branches, c classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.heads import Head

CLASSES, IMAGES = 10, 6
_AWAY = 0.3  # spread that is added to weights: at first, a LayerScale of 1e-4 would hide half of a head


class Violation(Exception):  # noqa: N818 - an answer of a check
    """What a head does instead of what is expected; one line."""


@dataclass(frozen=True)
class Subject:
    """A head with its options, and the sizes that it is checked at."""

    name: str
    kind: type[Head]
    options: dict[str, Any] = field(default_factory=dict)
    width: int = 64  # D
    count: int = 16  # N

    def build(self, heads: int, seed: int = 0, count: int | None = None, classes: int = CLASSES) -> Head:
        """Build K branches of initial weights, in float32."""
        torch.manual_seed(seed)
        tokens = self.count if count is None else count
        return self.kind(width=self.width, num_classes=classes, heads=heads, tokens=tokens, **self.options)

    def make(self, heads: int, dtype: torch.dtype = torch.float64, count: int | None = None) -> Head:
        """Build K branches away from their initial weights."""
        head = self.build(heads, seed=heads, count=count)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(_AWAY * torch.randn_like(parameter))
        return head.to(dtype)

    def tokens(
        self, images: int = IMAGES, dtype: torch.dtype = torch.float64, count: int | None = None
    ) -> Float[Tensor, "b t d"]:
        """Draw tokens, the class token first if the head reads it."""
        patches = self.count if count is None else count
        return torch.randn(images, patches + self.kind.class_token, self.width, dtype=dtype)


def gradients(
    head: Head, x: Float[Tensor, "b t d"], run: Callable[[Tensor], Tensor] | None = None
) -> tuple[Float[Tensor, "b k c"], list[Tensor | None]]:
    """Return logits, and the gradients of the tokens and of every parameter; None of one that is not used."""
    x = x.detach().clone().requires_grad_()
    logits = head(x) if run is None else run(x)
    loss = logits.double().square().sum()
    return logits.detach(), [*torch.autograd.grad(loss, [x, *head.parameters()], allow_unused=True)]


def expect(is_so: object, found: str) -> None:
    """Raise Violation with what was found unless `is_so`."""
    if not is_so:
        raise Violation(found)


def expect_close(got: Tensor, expected: Tensor, what: str, tolerance: float = 1e-9) -> None:
    """Raise Violation unless tensors have one shape and differ by at most `tolerance` of the largest value."""
    got, expected = got.detach(), expected.detach()
    expect(got.shape == expected.shape, f"{what}: expected the shape {_shape(expected)}, found {_shape(got)}")
    expect(got.isfinite().all(), f"{what}: expected finite numbers, found others")
    difference = float((got.double() - expected.double()).abs().max()) if got.numel() else 0.0
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    expect(difference <= tolerance * scale, f"{what}: expected equal numbers, found a difference of {difference:.2g}")


def expect_shape(got: Tensor, expected: Sequence[int], what: str) -> None:
    """Raise Violation unless a tensor has that shape."""
    expect(tuple(got.shape) == tuple(expected), f"{what}: expected the shape {tuple(expected)}, found {_shape(got)}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
