"""The meta device: tensors have shapes and no values, so that a model of any size needs neither memory nor time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_ONLY_VALUES = {
    *(Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_, Tensor.fill_),
    *(Tensor.zero_, nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_),
}


class _NoValues(TorchFunctionMode):
    """Leaves out what only changes values, as initialisation does: torch takes a millisecond each to do nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ONLY_VALUES:
            tensor, *others = (*args, *kwargs.values())
            if tensor.is_meta and not any(isinstance(other, Tensor) for other in others):
                return tensor
        return func(*args, **kwargs)


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Build modules on the meta device."""
    with torch.device("meta"), _NoValues():
        yield
