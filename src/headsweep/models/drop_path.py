"""Stochastic depth (arXiv 1603.09382) whose rate is data: blocks that differ in it alone are one compiled graph."""

# b images

import timm.layers
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.buffers import derive_after_loading


class DropPath(nn.Module):
    """Leaves out, in training, the branch of each image with probability `rate`, and scales those that stay."""

    keep: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.drop_prob = rate  # to be read, as timm's: the compiler would take it for a part of the code
        self.register_buffer("keep", torch.tensor(1 - rate, device="cpu"), persistent=False)
        derive_after_loading(self)

    def derived_buffers(self) -> dict[str, Tensor]:
        """The probability of staying."""
        return {"keep": torch.tensor(1 - self.drop_prob)}

    def forward(self, branch: Float[Tensor, "b *n"]) -> Float[Tensor, "b *n"]:
        """As timm's DropPath, with draws of its own."""
        return _dropped(branch, self.keep) if self.training else branch


@torch.fx.wrap  # FX does not know how many dimensions there are
def _dropped(branch: Float[Tensor, "b *n"], keep: Float[Tensor, ""]) -> Float[Tensor, "b *n"]:
    one_each = branch.flatten(1)[:, :1].view(-1, *[1] * (branch.ndim - 1))
    kept = torch.rand_like(one_each, dtype=torch.float32) < keep
    return branch * (kept / keep).to(branch.dtype)


def hold_rates_as_data(model: nn.Module) -> None:
    """Let ours stand in for timm's DropPath in `model`."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, timm.layers.DropPath):
                setattr(module, name, DropPath(child.drop_prob))
