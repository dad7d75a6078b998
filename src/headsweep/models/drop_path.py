"""Stochastic depth (arXiv 1603.09382) whose rate is a buffer: blocks that differ only in it share one graph."""

# b images

import timm.layers
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.heads.layers.buffers import derive_after_loading


class DropPath(nn.Module):
    """Drop the residual branch of each image with probability `rate` in training, and rescale those that remain."""

    keep: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.drop_prob = rate  # for readers, as in timm's; in forward, the compiler would make it a constant
        self.register_buffer("keep", torch.tensor(1 - rate, device="cpu"), persistent=False)
        derive_after_loading(self)

    def derived_buffers(self) -> dict[str, Tensor]:
        """Return the probability of keeping a branch."""
        return {"keep": torch.tensor(1 - self.drop_prob)}

    def forward(self, branch: Float[Tensor, "b *n"]) -> Float[Tensor, "b *n"]:
        """Compute timm's DropPath, with other random draws."""
        return _dropped(branch, self.keep) if self.training else branch


@torch.fx.wrap  # FX cannot trace the number of dimensions
def _dropped(branch: Float[Tensor, "b *n"], keep: Float[Tensor, ""]) -> Float[Tensor, "b *n"]:
    one_each = branch.flatten(1)[:, :1].view(-1, *[1] * (branch.ndim - 1))
    kept = torch.rand_like(one_each, dtype=torch.float32) < keep
    return branch * (kept / keep).to(branch.dtype)


def hold_rates_as_data(model: nn.Module) -> None:
    """Replace timm's DropPath in `model` by this one."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, timm.layers.DropPath):
                setattr(module, name, DropPath(child.drop_prob))
