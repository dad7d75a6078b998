"""On the meta device, modules have their shapes, and initial values are not computed."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from headsweep.models.meta_device import on_meta_device


class Called(TorchDispatchMode):
    """The names of the operators that are called with tensors of the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(isinstance(it, Tensor) and it.is_meta for it in args):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def shapes(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", ["ga2_cct_7_3x1_32", "test_vit", "test_convnext", "test_efficientnet"])
def test_modules_have_the_shapes_that_they_have_elsewhere(name: str) -> None:
    with on_meta_device(), Called() as called:
        model = timm.create_model(name)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert shapes(model) == shapes(timm.create_model(name))
    assert not [called for called in called.names if "uniform" in called or "normal" in called or "clamp" in called]


def test_shapes_are_checked_and_tensors_of_other_devices_have_values() -> None:
    with on_meta_device():
        with pytest.raises(RuntimeError, match="broadcast"):
            torch.empty(3).add_(torch.empty(4))
        assert torch.empty(3).mul_(torch.empty(3)).is_meta
        other: Tensor = torch.empty(3, device="cpu").fill_(2).add_(1)
    assert other.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    "initialise",
    [
        lambda: nn.Parameter(torch.empty(3)).normal_(),
        lambda: nn.Parameter(torch.empty(3))[:2].mul_(2),
        lambda: nn.init.kaiming_uniform_(tensor=torch.empty(3)),
        lambda: nn.init.kaiming_uniform_(torch.empty(3)),
        lambda: nn.init.kaiming_uniform_(torch.empty(3, 3), mode="fan"),
        lambda: nn.init.normal_(torch.empty(3), 0, -1),
        lambda: nn.init.uniform_(torch.empty(3), 1, 0),
        lambda: nn.init.constant_(torch.empty(3), None),
    ],
)
def test_what_torch_refuses_elsewhere_is_refused_there(initialise: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as expected:
        initialise()
    state = torch.get_rng_state()
    with on_meta_device(), pytest.raises(expected.type):
        initialise()
    assert torch.equal(torch.get_rng_state(), state)
