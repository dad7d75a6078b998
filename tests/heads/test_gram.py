"""On a GPU, the Gram product takes features in bfloat16 as they are, and sums in float32."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from headsweep.heads.layers import gram
from headsweep.heads.layers.gram import CancelledBias, GramQuery, GramTriangle

CHANNELS, BRANCHES, TOKENS = 16, 3, 50


def buffers() -> tuple[Tensor, Tensor]:
    built = GramQuery(1, 64, CHANNELS).derived_buffers()
    return built["triangle"], built["symmetric"]


def query_outcome(query: GramQuery, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The queries, and the gradients of all parameters."""
    query.zero_grad()
    queries = query(tokens)
    weights = torch.randn(queries.shape, generator=torch.Generator().manual_seed(1))
    (queries * weights).sum().backward()
    return queries, {name: parameter.grad for name, parameter in query.named_parameters()}


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


@pytest.mark.parametrize("training", [True, False])
def test_on_a_gpu_a_bias_before_statistics_of_the_batch_has_a_gradient_of_zeros(
    training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is what rounding errors sum up to; with running statistics, it has the gradient that autograd finds."""
    torch.manual_seed(0)
    query, tokens = GramQuery(BRANCHES, 64, CHANNELS).train(training), torch.randn(5, TOKENS, 64)
    queries, expected = query_outcome(query, tokens)
    monkeypatch.setattr(gram, "_cancelled", lambda bias, tokens: CancelledBias.apply(bias))
    on_gpu, found = query_outcome(query, tokens)
    assert torch.equal(on_gpu, queries)
    changed = {name for name in found if not torch.equal(found[name], expected[name])}
    assert changed == ({"contraction.bias"} if training else set())
    if training:
        assert not found["contraction.bias"].any()
        assert expected["contraction.bias"].norm() < 1e-5 * expected["contraction.weight"].norm()


def test_on_a_cpu_it_is_the_sum() -> None:
    bias, tokens = torch.zeros(2, CHANNELS), torch.empty(1, 1, 64)
    assert gram._cancelled(bias, tokens) is bias


def test_no_copy_of_the_features_in_float32_is_made_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        features = torch.empty(BRANCHES, CHANNELS, TOKENS, dtype=torch.bfloat16, device="cuda")
        triangle, symmetric = (indices.to("cuda") for indices in buffers())
        monkeypatch.setattr(gram, "_exact", None)
        triangles = GramTriangle.apply(features, triangle, symmetric)
    assert triangles.dtype is torch.float32 and triangles.device.type == "cuda"
