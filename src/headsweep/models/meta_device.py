"""The meta device: tensors have shapes and no values, so that a model of any size needs neither memory nor time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_METHODS = {
    *(Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_, Tensor.fill_),
    Tensor.zero_,
}
_ONLY_VALUES = {*_METHODS, nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_}


class _NoValues(TorchFunctionMode):
    """Leaves out what only changes values, as initialisation does: each such call costs a millisecond without effect.

    What cannot be called is refused all the same, as it would be when the run builds its model.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ONLY_VALUES:
            tensor, *others = (*args, *kwargs.values())
            may_change_in_place = not (func in _METHODS and tensor.requires_grad and torch.is_grad_enabled())
            if tensor.is_meta and may_change_in_place and not any(isinstance(other, Tensor) for other in others):
                probe = tensor.new_empty([1] * tensor.dim(), device="cpu")
                if args:
                    func(probe, *args[1:], **kwargs)  # checks the arguments
                else:
                    func(**{**kwargs, next(iter(kwargs)): probe})
                return tensor
        return func(*args, **kwargs)


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Build modules on the meta device; random numbers are drawn from the same state afterwards."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _NoValues():
        yield
