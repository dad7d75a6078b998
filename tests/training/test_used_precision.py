"""Which precision a run computes in."""

import pytest
import torch

from headsweep.config import Precision
from headsweep.training.device import autocast, environment, used_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_depends_on_the_kind_of_the_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run resumed on a CPU with other units goes on in its precision."""
    for has_units in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has_units: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=has_units: has)
        assert used_precision(Precision.auto, CPU) is Precision.float32
    assert used_precision(Precision.auto, GPU) is Precision.bfloat16


@pytest.mark.parametrize("given", [Precision.float32, Precision.bfloat16])
def test_a_given_precision_is_used_everywhere_and_recorded(given: Precision) -> None:
    assert used_precision(given, CPU) is used_precision(given, GPU) is given
    assert environment(CPU, 1, given)["precision"] == given.value
    with autocast(given, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, given.value)
