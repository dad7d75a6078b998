"""Stochastic depth (arXiv 1603.09382) whose rate is a buffer: blocks that differ only in it share one graph."""

# b images, n tokens, d width, l layers, r branches of a layer

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

    def forward(self, branch: Float[Tensor, "b *n"], factors: Float[Tensor, "b *_"] | None = None) -> Tensor:
        """Compute timm's DropPath, with other random draws, or with these factors."""
        if not self.training:
            return branch
        return branch * (self.draw(branch) if factors is None else factors).to(branch.dtype)

    def draw(self, branch: Float[Tensor, "b *n"]) -> Float[Tensor, "b *_"]:
        """Return what the branch of each image is multiplied by, 0 or 1 / keep, in float32."""
        return _factors(branch, self.keep)


@torch.fx.wrap  # FX cannot trace the number of dimensions
def _factors(branch: Float[Tensor, "b *n"], keep: Float[Tensor, ""]) -> Float[Tensor, "b *_"]:
    one_each = branch.flatten(1)[:, :1].view(-1, *[1] * (branch.ndim - 1))
    return (torch.rand_like(one_each, dtype=torch.float32) < keep) / keep


@torch.fx.wrap  # FX cannot trace a shape
def draw_at_once(
    keep: Float[Tensor, " l"], branches: int, tokens: Float[Tensor, "b n d"]
) -> Float[Tensor, "l r b 1 1"]:
    """Return the factors of r branches in each of l layers, as of `DropPath.draw`."""
    uniform = torch.rand(len(keep), branches, tokens.shape[0], 1, 1, device=keep.device)
    keep = keep.view(-1, 1, 1, 1, 1)
    return (uniform < keep) / keep


def hold_rates_as_data(model: nn.Module) -> None:
    """Replace timm's DropPath in `model` by this one."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, timm.layers.DropPath):
                setattr(module, name, DropPath(child.drop_prob))
