"""The heads of attentive probing equal other implementations and each other, at other options than the default too."""

import oracle
import pytest
import timm.layers
import torch
from test_heads import check_against_oracle, images, make
from torch import Tensor, nn

from headsweep.heads import Head, build_head


def parameters(head: Head) -> int:
    return sum(parameter.numel() for parameter in head.parameters())


def of_timm(head: Head, pool: nn.Module, names: dict[str, str]) -> nn.Module:
    """Copy the parameters of the head's only branch into a pooling of timm: name there -> names here, concatenated."""
    state = {name: torch.cat([head.get_parameter(part)[0] for part in parts.split()]) for name, parts in names.items()}
    state = {name: tensor.view_as(pool.get_parameter(name)) for name, tensor in state.items()}
    pool.double().load_state_dict(state)
    return pool


def test_ep_on_vit_b_with_1000_classes_has_the_published_size() -> None:
    """1.38 M: D^2 + M D + 1000 D + 1000 at the default M = 32 and d_out = 1."""
    head = build_head("ep", width=768, num_classes=1000, heads=1, tokens=196)
    assert parameters(head) == 1_383_400


def test_ep_pools_to_the_width_over_d_out() -> None:
    head = build_head("ep", width=768, num_classes=1000, heads=3, tokens=196, d_out=4)
    assert head(torch.randn(2, 5, 768)).shape == (2, 3, 1000) and head.pool(torch.randn(2, 5, 768)).shape == (2, 3, 192)
    assert parameters(head) == 3 * (768 * 192 + 32 * 768 + 192 * 1000 + 1000)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ep", {"queries": 8, "d_out": 2}),
        ("aim", {"queries": 3, "attention_heads": 4}),
        ("simpool", {"gamma": 1.25}),
        ("map", {"attention_heads": 1}),
        ("lse", {"sharpness": 0.5}),
        ("clip", {"attention_heads": 2}),
        ("cae", {"attention_heads": 16}),
    ],
)
def test_equals_the_loop_over_branches_with_other_options(name: str, options: dict) -> None:
    check_against_oracle(name, make(name, 3, **options), images())


def test_a_deeper_abmilp_equals_the_loop_over_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deep(oracle.Abmilp):
        NAMES = oracle.Abmilp.NAMES | oracle.projections("layers.1")

    monkeypatch.setitem(oracle.BRANCHES, "abmilp", Deep)
    check_against_oracle("abmilp", make("abmilp", 3, depth=3), images())


def test_abmilp_of_depth_1_is_seqpool() -> None:
    head = make("abmilp", 3, depth=1)
    seqpool = make("seqpool", 3)
    state = {name.replace("score.", "pooling.score."): tensor for name, tensor in head.state_dict().items()}
    seqpool.load_state_dict(state)
    x = images()
    torch.testing.assert_close(head(x), seqpool(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head.token_weights(x), seqpool.token_weights(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 3])
def test_vjepa_with_self_attention_equals_the_loop_over_branches(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deep(oracle.VJepa):
        NAMES = oracle.VJepa.NAMES | {
            f"blocks.{i}.{stacked}": f"blocks.{i}.{plain}"
            for i in (0, 1)
            for stacked, plain in (oracle.projections("norm1", "qkv", "proj", "norm2") | oracle._MLP).items()
        }

    monkeypatch.setitem(oracle.BRANCHES, "vjepa", Deep)
    head, x = make("vjepa", heads, depth=3), images()
    check_against_oracle("vjepa", head, x)
    expected = oracle.reference("vjepa", head).token_weights(x)
    torch.testing.assert_close(head.token_weights(x), expected, rtol=1e-10, atol=1e-10)


def test_map_is_timm_s_attention_pooling() -> None:
    head = make("map", 1)
    parts = {"q": "query", "proj": "proj", "norm": "norm", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    names = {f"{timm_s}.{kind}": f"{own}.{kind}" for timm_s, own in parts.items() for kind in ("weight", "bias")}
    names |= {f"kv.{kind}": f"key.{kind} value.{kind}" for kind in ("weight", "bias")} | {"latent": "probe"}
    pool = of_timm(head, timm.layers.AttentionPoolLatent(64, norm_layer=nn.LayerNorm), names)
    x = images()
    torch.testing.assert_close(head.pool(x)[:, 0], pool(x), rtol=1e-10, atol=1e-10)


def test_clip_is_timm_s_attention_pooling() -> None:
    head = make("clip", 1)
    names = {f"qkv.{kind}": f"query.{kind} key.{kind} value.{kind}" for kind in ("weight", "bias")}
    names |= {f"proj.{kind}": f"proj.{kind}" for kind in ("weight", "bias")} | {"pos_embed": "positions"}
    pool = of_timm(head, timm.layers.AttentionPool2d(64, feat_size=4, num_heads=8), names)
    x = images()
    as_map = x.transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(head.pool(x)[:, 0], pool(as_map), rtol=1e-10, atol=1e-10)


def test_simpool_with_gamma_1_is_the_weighted_mean_above_the_least_value() -> None:
    plain, power, x = make("simpool", 2), make("simpool", 2, gamma=1.0), images()
    power.load_state_dict(plain.state_dict())
    difference = plain.pool(x) - power.pool(x)
    torch.testing.assert_close(difference, difference[..., :1].expand_as(difference), rtol=1e-10, atol=1e-10)


def test_cae_starts_with_equal_weights() -> None:
    head = build_head("cae", width=64, num_classes=10, heads=2, tokens=16)
    weights = head.token_weights(images(dtype=torch.float32))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 16))


def pooled_with_gradient(head: Head, x: Tensor) -> Tensor:
    pooled = head.pool(x)[:, 0]
    pooled.sum().backward()
    assert x.grad.isfinite().all() and all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    return pooled


@pytest.mark.parametrize("power", [1.0, 60.0])
def test_gem_is_between_the_mean_and_the_maximum(power: float) -> None:
    """Powers of the least value that counts are no numbers of float32."""
    head = build_head("gem", width=64, num_classes=10, heads=1, tokens=16)
    head.power.data.fill_(power)
    x = torch.cat([50 * torch.rand(6, 16, 32), -torch.rand(6, 16, 32)], 2).requires_grad_()
    expected = x.mean(1) if power == 1 else x.amax(1)
    torch.testing.assert_close(pooled_with_gradient(head, x)[:, :32], expected[:, :32], rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("sharpness", [1e-4, 1e3])
def test_lse_is_between_the_mean_and_the_maximum(sharpness: float) -> None:
    head = build_head("lse", width=64, num_classes=10, heads=1, tokens=16, sharpness=sharpness)
    x = (50 * torch.randn(6, 16, 64)).requires_grad_()
    expected = x.mean(1) if sharpness < 1 else x.amax(1)
    torch.testing.assert_close(pooled_with_gradient(head, x), expected, rtol=0.05, atol=0.3)
