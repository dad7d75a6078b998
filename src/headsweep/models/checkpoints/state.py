"""State dicts of a model, and the error of one that does not fit."""

import torch
from torch import Tensor

from headsweep.errors import UserError
from headsweep.heads import Head
from headsweep.models.backbone import Backbone
from headsweep.text import shortened

_SHOWN = 3  # names that an error lists


class CheckpointError(UserError, RuntimeError):
    """A state dict of another model; a RuntimeError, as torch's `load_state_dict` raises."""


def copied_state(backbone: Backbone, head: Head | None) -> dict[str, Tensor]:
    """Return a copy of the state dict of a `Classifier` of the two, or of its part without head, on the CPU."""
    parts = {"backbone": backbone} if head is None else {"backbone": backbone, "head": head}
    return {
        f"{part}.{name}": copied(tensor)
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def copied(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU; zeros for a meta tensor."""
    if tensor.is_meta:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def listed(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    return shortened([str(name) for name in names], _SHOWN) or "nothing"
