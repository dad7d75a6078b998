"""Buffers computed from a module's options, which are in no state dict.

A model that was built on the meta device, or moved by `to_empty`, has no numbers in them when its weights are loaded.
"""

from itertools import chain
from typing import Protocol, cast

from torch import Tensor, nn


class Derives(Protocol):
    """A module that can recompute such buffers."""

    def derived_buffers(self) -> dict[str, Tensor]:
        """Name and value of each."""


def derive_after_loading(module: nn.Module) -> None:
    """Let `load_state_dict` recompute the buffers of `module`, which is a `Derives`, on the device of the weights."""
    module.register_load_state_dict_post_hook(_derive)


def _derive(module: nn.Module, _incompatible: object) -> None:
    device = next(chain(module.parameters(), module.buffers())).device
    if device.type == "meta":
        return
    with device:
        fresh = cast(Derives, module).derived_buffers()
    for name, value in fresh.items():
        held = module.get_buffer(name)
        if held.device == device:
            held.copy_(value)
        else:
            setattr(module, name, value.to(device, held.dtype))
