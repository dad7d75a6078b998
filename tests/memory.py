"""What a model keeps for its backward pass."""

import torch
from torch import Tensor, nn


def saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes of all storages that autograd saves in a forward pass, each once, without parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other one gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images, per_head=True)
    return sum(storage.nbytes() for storage in kept.values())
