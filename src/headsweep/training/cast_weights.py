"""Cast the weights of a model once, in place of autocast, which casts them in each forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headsweep.training.evaluation import Forward


def cast_where_autocast_would(model: nn.Module, forward: Forward, images: Tensor) -> None:
    """Cast the parameters that the forward pass uses in no other way, if that leaves its result as it is, to the bit.

    A module may ask for the dtype of its parameter; then nothing is cast. Not for use in inference mode, in which torch
    shows whole operations, with the casts inside them.
    """
    with Uses(model) as uses:
        expected = forward(images)
    before = {parameter: parameter.data for parameter in uses.only_cast}
    for parameter, dtype in uses.only_cast.items():
        parameter.data = parameter.data.to(dtype)
    if before and not torch.equal(forward(images), expected):
        for parameter, values in before.items():
            parameter.data = values


class Uses(TorchDispatchMode):
    """Sees what is done with the parameters of a model, and with views of them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._owners = {_storage(parameter): parameter for parameter in model.parameters()}
        self._cast = dict[nn.Parameter, torch.dtype]()
        self._used = set[nn.Parameter]()

    @property
    def only_cast(self) -> Mapping[nn.Parameter, torch.dtype]:
        """The parameters that are cast to a smaller dtype, the same each time, and not used otherwise."""
        return {parameter: dtype for parameter, dtype in self._cast.items() if parameter not in self._used}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        results = set(map(_storage, _tensors(result)))
        for given in set(map(_storage, _tensors((args, kwargs)))) & self._owners.keys():
            if results != {given}:  # else a view
                self._note(self._owners[given], func, result)
        return result

    def _note(self, parameter: nn.Parameter, func: Any, result: Any) -> None:
        is_cast = func is torch.ops.aten._to_copy.default and result.dtype.itemsize < parameter.dtype.itemsize
        if not is_cast or self._cast.setdefault(parameter, result.dtype) != result.dtype:
            self._used.add(parameter)


def _storage(tensor: Tensor) -> int:
    """Return what names the memory of a tensor and its views; 0 for one without, which is sparse."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
