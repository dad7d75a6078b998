"""Buffers that follow from a module's options, and so are in no state dict.

A model that was built on the meta device, or moved by `to_empty`, has no numbers in them when its weights are loaded.
"""

from itertools import chain
from typing import Protocol, cast

from torch import Tensor, nn


class Derives(Protocol):
    """A module that can compute such buffers anew."""

    def derived_buffers(self) -> dict[str, Tensor]:
        """Name and value of each."""


def derive_after_loading(module: nn.Module) -> None:
    """Have `load_state_dict` compute the buffers of `module`, which is a `Derives`, anew on the weights' device."""
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
