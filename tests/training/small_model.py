"""A model for tests of what is done with any: compiling one of headsweep's takes half a second."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SmallModel(nn.Module):
    """Images of one channel and 16 x 16 pixels to logits of one head and 10 classes, with running statistics."""

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda features: features) -> None:
        """`change` is called in the forward pass."""
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.change = nn.Linear(256, 10), nn.BatchNorm1d(10), change

    def forward(self, images: Tensor, per_head: bool = True) -> Tensor:
        return self.norm(self.change(self.linear(images.flatten(1)))).unsqueeze(1)


def assert_equal_state(model: nn.Module, other: nn.Module) -> None:
    """Check that gradients and running statistics have the same bits."""
    for own, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(own.grad, expected.grad)
    for own, expected in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(own, expected)
