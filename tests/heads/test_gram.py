"""On a GPU, the Gram product takes features in bfloat16 as they are, and sums in float32."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from headsweep.heads.layers import gram
from headsweep.heads.layers.gram import GramQuery, GramTriangle

CHANNELS, BRANCHES, TOKENS = 16, 3, 50


def buffers() -> tuple[Tensor, Tensor]:
    built = GramQuery(1, 64, CHANNELS).derived_buffers()
    return built["triangle"], built["symmetric"]


def outcome(features: Tensor) -> tuple[Tensor, Tensor]:
    """The triangles, and the gradient of the features."""
    leaf = features.clone().requires_grad_()
    triangles = GramTriangle.apply(leaf, *buffers())
    weights = torch.randn(triangles.shape, generator=torch.Generator().manual_seed(1))
    return triangles, torch.autograd.grad((triangles * weights).sum(), leaf)[0]


def test_products_of_bfloat16_lose_no_more_than_the_rounding_of_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's product of float32 in the place of the GPU's, which a CPU does not have."""
    product = torch.bmm

    def summed_in_float32(left: Tensor, right: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        return product(left.float(), right.float()).to(out_dtype or left.dtype)

    features = torch.randn(BRANCHES, CHANNELS, TOKENS, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = outcome(features)
    monkeypatch.setattr(gram, "_multiplies_bfloat16", lambda features: True)
    monkeypatch.setattr(torch, "bmm", summed_in_float32)
    triangles, gradient = outcome(features)
    assert torch.equal(triangles, expected[0]) and triangles.dtype is torch.float32
    assert gradient.dtype is torch.bfloat16
    assert (gradient.float() - expected[1].float()).norm() < 2**-8 * expected[1].float().norm()


def test_no_copy_of_the_features_in_float32_is_made_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        features = torch.empty(BRANCHES, CHANNELS, TOKENS, dtype=torch.bfloat16, device="cuda")
        triangle, symmetric = (indices.to("cuda") for indices in buffers())
        monkeypatch.setattr(gram, "_exact", None)
        triangles = GramTriangle.apply(features, triangle, symmetric)
    assert triangles.dtype is torch.float32 and triangles.device.type == "cuda"
