"""Backbones of timm output tokens, whatever the architecture, and do not depend on the head."""

import dataclasses

import pytest
import torch
from timm.optim import param_groups_weight_decay

from composing import compose_run
from headsweep.config import HeadConfig, TimmConfig
from headsweep.errors import ConfigError
from headsweep.models.meta_device import on_meta_device
from headsweep.models.timm_backbone import TimmBackbone
from headsweep.run.train_run import preflight
from making import CLS, GA, GAP, SEQATTN, SEQPOOL, of, parameters

pytestmark = pytest.mark.slow


def named(name: str, small_stem: bool = False, **options) -> TimmConfig:
    return TimmConfig("timm", name, None, None, small_stem=small_stem, options=options or None)


def on_meta(name: str, image_size: int, channels: int = 3, small_stem: bool = False, **options) -> TimmBackbone:
    with on_meta_device():
        return TimmBackbone(named(name, small_stem, **options), image_size, channels)


ONE_BLOCK, ONE_EACH = {"depth": 1}, {"depths": (1, 1, 1, 1)}
# As shallow as timm lets it be.
OPTIONS = {
    "resnet18": {"layers": (1, 1, 1, 1)},
    "convnext_atto": ONE_EACH,
    "swin_tiny_patch4_window7_224": ONE_EACH,
    "vit_tiny_patch16_224": ONE_BLOCK,
    "deit_tiny_distilled_patch16_224": ONE_BLOCK,
    "vit_small_patch14_reg4_dinov2": ONE_BLOCK,
    "vit_wee_patch16_reg1_gap_256": ONE_BLOCK,
    "vit_base_patch16_siglip_224": ONE_BLOCK,
    "xcit_nano_12_p16_224": ONE_BLOCK,
    "inception_next_atto": ONE_EACH,
}
# name -> size, width, patch tokens, prefix tokens, and whether the first of them is a class token.
KINDS = {
    "resnet18": (64, 512, 4, 0, False),  # a feature map
    "convnext_atto": (64, 320, 4, 0, False),  # normalised in its head
    "mobilenetv3_small_050": (64, 1024, 4, 0, False),  # its head widens the map
    "swin_tiny_patch4_window7_224": (64, 768, 4, 0, False),  # channels last
    "mixer_s32_224": (64, 512, 4, 0, False),  # tokens, no class token
    "vit_tiny_patch16_224": (64, 192, 16, 1, True),
    "deit_tiny_distilled_patch16_224": (64, 192, 16, 2, True),  # pools all the same
    "vit_small_patch14_reg4_dinov2": (56, 384, 16, 5, True),  # class token, then registers
    "vit_wee_patch16_reg1_gap_256": (64, 256, 16, 1, False),  # a register alone
    "vit_base_patch16_siglip_224": (64, 768, 16, 0, False),  # attention pooling is removed
    "volo_d1_224": (64, 384, 16, 1, True),  # a late class token that is not counted
    "xcit_nano_12_p16_224": (64, 128, 16, 1, True),  # a late class token
    "inception_next_atto": (64, 320, 4, 0, False),  # refuses to leave out its pooling
}


@pytest.mark.parametrize("name", KINDS)
def test_tokens_of_every_kind_of_model_and_nothing_untrained(name: str) -> None:
    image_size, *expected = KINDS[name]
    backbone = on_meta(name, image_size, channels=1, **OPTIONS.get(name, {}))
    assert [backbone.width, backbone.tokens, backbone.prefix, backbone.has_class_token] == expected
    # Construction has already run one image in eval mode.
    tokens = backbone(torch.empty(2, 1, image_size, image_size, device="meta"))
    assert tokens.shape == (2, backbone.prefix + backbone.tokens, backbone.width)
    tokens.sum().backward()
    assert not [key for key, parameter in backbone.named_parameters() if parameter.grad is None]


REFUSED = [
    ("resnet5", {}, 64, "model.name=resnet5: unknown model of timm; did you mean resnet50"),
    ("cct_7_3x1_32", {}, 32, "model.name=cct_7_3x1_32: unknown model of timm"),
    ("headsweep", {}, 32, "model.name=headsweep: unknown model of timm"),
    ("headsweeep", {}, 32, "model.name=headsweeep: unknown model of timm; timm.list_models() lists them"),
    ("resnet18", {"depth": 2}, 64, "model.options={'depth': 2}: timm cannot build resnet18 with it: "),
    ("vit_tiny_patch16_224", {"depth": "two"}, 64, "model.options={'depth': 'two'}: timm cannot build"),
    ("vit_tiny_patch16_224", {"num_heads": 0}, 64, "model.options={'num_heads': 0}: timm cannot build"),
    ("resnet18", {}, 32, "dataset.image_size=32: expected larger images or"),
    (
        "densenet121",
        {"block_config": (1, 1, 1, 1)},
        16,
        "dataset.image_size=16: expected a size that densenet121 accepts (",
    ),
    ("pit_ti_224", {}, 64, "model.name=pit_ti_224: expected a model that outputs patch tokens"),
    (
        "coat_lite_tiny",
        {"serial_depths": (1, 1, 1, 1)},
        64,
        "model.name=coat_lite_tiny: expected a square grid of tokens, found 5",
    ),
    (
        "crossvit_tiny_240",
        {"depth": ((1, 1, 0),) * 3},
        240,
        "model.name=crossvit_tiny_240: expected a model that outputs tokens or one feature map",
    ),
]


@pytest.mark.parametrize(("name", "options", "image_size", "message"), REFUSED, ids=lambda value: str(value)[:20])
def test_models_without_tokens_are_refused_in_one_line(name, options, image_size, message) -> None:
    with pytest.raises(ConfigError) as caught:
        on_meta(name, image_size, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_map_is_read_in_row_order_whatever_its_layout() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    for name in ("resnet18", "swin_tiny_patch4_window7_224"):
        backbone = TimmBackbone(named(name, **OPTIONS[name]), 64, 3).eval()
        features = backbone.model.forward_features(images)
        normalised = backbone.model.forward_head(features)
        grid = normalised if getattr(backbone.model, "output_fmt", "NCHW") == "NHWC" else normalised.permute(0, 2, 3, 1)
        tokens = backbone(images)
        assert torch.equal(tokens[:, 1], grid[:, 0, 1]) and torch.equal(tokens[:, 2], grid[:, 1, 0])


def test_the_class_token_is_the_first_and_no_other_head_reads_prefix_tokens() -> None:
    model = named("deit_tiny_distilled_patch16_224", depth=1)
    cls, gap, both = (of(model, head, heads=1, image_size=32).eval() for head in (CLS, GAP, HeadConfig("cls_gap")))
    for other in (gap, both):
        other.backbone.model.load_state_dict(cls.backbone.model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    tokens = cls.backbone.model.forward_features(images)
    torch.testing.assert_close(cls.forward_head(tokens, pre_logits=True), tokens[:, 0])
    torch.testing.assert_close(gap.forward_head(tokens, pre_logits=True), tokens[:, 2:].mean(1))
    concatenated = torch.cat([tokens[:, 0], tokens[:, 2:].mean(1)], 1)
    torch.testing.assert_close(both.forward_head(tokens, pre_logits=True), concatenated)
    with pytest.raises(
        ConfigError, match=r"head=cls: expected a head without class token: model.name=resnet18 has none"
    ):
        of(named("resnet18", **OPTIONS["resnet18"]), CLS, image_size=64)


def test_one_seed_gives_byte_identical_convolutions_whatever_the_head() -> None:
    """As the blocks of a ViT, see test_models.py."""
    name = "resnet10t"
    reference = of(named(name), GAP, heads=1, image_size=64).backbone.state_dict()
    for head, heads in ((SEQPOOL, 3), (GA, 4)):
        state = of(named(name), head, heads, image_size=64).backbone.state_dict()
        assert all(torch.equal(state[key], reference[key]) for key in reference)
    other = of(named(name), GAP, heads=1, seed=1, image_size=64).backbone.state_dict()
    assert any(not torch.equal(other[key], reference[key]) for key in reference)


# Upstream's ResNets for CIFAR at 100 classes have 11,223,972 and 23,727,908 parameters, of which 3,840 and 22,656 are
# biases of convolutions that a batch norm follows.
@pytest.mark.parametrize(("name", "published"), [("resnet18", 11_223_972 - 3_840), ("resnet50", 23_727_908 - 22_656)])
def test_the_small_stem_has_the_size_of_the_published_resnets(name: str, published: int) -> None:
    with on_meta_device():
        backbone = TimmBackbone(named(name, small_stem=True), 32, 3)
    assert backbone.tokens == 16
    assert sum(p.numel() for p in backbone.parameters()) + (backbone.width + 1) * 100 == published


def test_the_small_stem_is_drawn_from_the_seed_as_timm_draws_convolutions() -> None:
    one, again, other = (
        of(named("resnet18", small_stem=True, layers=(1, 1, 1, 1)), GAP, seed=s, image_size=32) for s in (0, 0, 1)
    )
    weights = [model.backbone.model.conv1.weight for model in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert weights[0].std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["resnet50d", "vit_tiny_patch16_224", "convnext_atto"])
def test_the_small_stem_is_refused_for_other_models(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"model.small_stem=true: expected false: {name} is no ResNet with a single stem convolution"
    ):
        on_meta(name, 64, small_stem=True)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18"])
def test_one_dimensional_parameters_and_those_timm_exempts_do_not_decay(name: str) -> None:
    with on_meta_device():
        model = of(named(name, **OPTIONS[name]), SEQATTN, image_size=64)
    kept, decayed = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert (kept["weight_decay"], decayed["weight_decay"]) == (0.0, 0.05)
    free, parameters = {id(p) for p in kept["params"]}, dict(model.named_parameters())
    exempt = {f"backbone.model.{key}" for key in getattr(model.backbone.model, "no_weight_decay", set)()}
    for key, parameter in parameters.items():
        per_head = parameter.ndim - key.startswith("head.")
        assert (id(parameter) in free) == (per_head <= 1 or key in exempt), key


def test_heads_of_every_kind_are_preflighted_on_a_timm_backbone() -> None:
    """With and without a class token, of a fixed number of tokens or any; test_head_checks.py counts FLOPs of all."""
    overrides = ["model=timm", "model.name=test_vit", "model.options={depth: 1}", "dataset.image_size=64", "device=cpu"]
    run = compose_run(*overrides, "heads=2")
    for head in (CLS, GAP, HeadConfig("cls_gap"), HeadConfig("se"), SEQATTN, GA):
        cost = preflight(dataclasses.replace(run, head=head))
        assert cost["parameters"] > cost["head_parameters"] > 0 and cost["flops"] > cost["head_flops"] > 0


# docs/fidelity.md: the Gramian attention paper's Table 2 prints 22.1, 22.8 and 27.3 M for ViT-S.
@pytest.mark.parametrize(
    ("head", "heads", "count"), [("gap", 1, 22_050_664), ("cait", 1, 22_792_936), ("cait", 5, 27_302_024)]
)
def test_vit_s_has_the_published_size(head: str, heads: int, count: int) -> None:
    run = compose_run("model=timm", f"head={head}")
    with on_meta_device():
        model = of(named("vit_small_patch16_224"), run.head, heads, image_size=224)
    model.reset_classifier(1000)
    assert parameters(model) == count
