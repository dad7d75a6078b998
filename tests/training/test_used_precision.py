"""Which precision a run computes in, where nothing was recorded."""

import pytest
import torch

from headsweep.config import Precision
from headsweep.training.device import autocast, computes_in, environment

CPU = torch.device("cpu")


def test_auto_depends_on_the_kind_of_the_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same configuration has the same numbers on CPUs with other units."""
    for has_units in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has_units: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=has_units: has)
        assert Precision.auto.on("cpu") is Precision.auto.on("mps") is Precision.float32
    assert Precision.auto.on("cuda") is Precision.bfloat16


@pytest.mark.parametrize("given", [Precision.float32, Precision.bfloat16])
def test_a_given_precision_is_used_everywhere_and_recorded(given: Precision) -> None:
    assert given.on("cpu") is given.on("cuda") is given
    assert computes_in(given, CPU)
    assert environment(CPU, 1, given)["precision"] == given.value
    with autocast(given, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, given.value)


def test_a_device_on_which_torch_would_compute_in_float32_does_not_support_bfloat16() -> None:
    """Of MPS on an old macOS, torch warns and disables autocast; of an old GPU it raises."""
    assert not computes_in(Precision.bfloat16, torch.device("meta"))
    assert computes_in(Precision.float32, torch.device("meta"))
