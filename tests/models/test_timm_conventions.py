"""Models follow timm's conventions: names, keywords, features, image sizes, tracing."""

import dataclasses
import math

import pytest
import timm
import torch
from timm.models import create_feature_extractor, get_graph_node_names
from torch import Tensor, nn

from headsweep.config import HeadConfig, ModelConfig, Positions
from headsweep.errors import UserError
from headsweep.models import Classifier
from headsweep.models.compact.transformer import sine_positions
from headsweep.models.registry import ENTRIES
from making import (
    CLS,
    GAP,
    RESNET,
    SEQATTN,
    SEQPOOL,
    TIMM,
    every_head,
    head_of_yaml,
    of,
    on_meta,
    tiny,
)

pytestmark = pytest.mark.slow


def images(count: int = 2, rows: int = 16, columns: int = 16) -> Tensor:
    return torch.randn(count, 3, rows, columns)


# Names and keywords


def test_a_number_in_a_name_cannot_be_contradicted() -> None:
    with pytest.raises(UserError, match="heads=8: expected 1, as in the name"):
        timm.create_model("ga1_cct_7_3x1_32", heads=8)
    assert on_meta("cct_2_3x2_32", heads=3).head.heads == 3


def test_timm_s_keywords_reach_the_model() -> None:
    model = on_meta(
        "cct_2_3x2_32",
        num_classes=7,
        img_size=(48, 32),
        in_chans=1,
        positions="none",
        drop_rate=0.2,
        attn_drop_rate=0.3,
        drop_path_rate=0.4,
        pretrained_cfg_overlay={"crop_pct": 0.5},
    )
    assert model(torch.empty(2, 1, 48, 32, device="meta")).shape == (2, 7)
    assert model.backbone.blocks[0].attention.attention_dropout == 0.3
    assert model.backbone.blocks[1].drop_path.drop_prob == pytest.approx(0.4)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.2}
    assert model.pretrained_cfg["crop_pct"] == 0.5 and model.in_chans == 1


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("cct_2_3x2_32", {"foo": 1}, "unknown keyword foo; head seqpool .* have .*drop_rate.*positions"),
        ("ga2_cct_7_3x1_32", {"bar": 1, "foo": 1}, "unknown keyword bar, foo; head ga .* have .*gram_dim.*num_classes"),
        ("seqpool2_cct_7_3x1_32", {"gram_dim": 16}, "unknown keyword gram_dim"),
        ("cct_2_3x2_32", {"positions": "up"}, "positions=up: expected learnable or sine or none"),
        ("cct_2_3x2_32", {"block": "up"}, "block=up: expected pre_norm or stream_norm"),
        ("cct_2_3x2_32", {"drop_rate": 1.5}, r"^drop_rate=1.5: expected a number in \[0, 1\)$"),
        ("cct_2_3x2_32", {"drop_rate": True}, "^drop_rate=True: expected a number"),
        ("cct_2_3x2_32", {"attn_drop_rate": "0.1"}, "^attn_drop_rate='0.1': expected a number"),
        ("cct_2_3x2_32", {"drop_path_rate": float("nan")}, "^drop_path_rate=nan: expected a number"),
        ("cct_2_3x2_32", {"in_chans": 0}, "^in_chans=0: expected an integer >= 1$"),
        ("cct_2_3x2_32", {"in_chans": True}, "^in_chans=True: expected an integer >= 1$"),
        ("cct_2_3x2_32", {"in_chans": 3.0}, "^in_chans=3.0: expected an integer >= 1$"),
        ("cct_2_3x2_32", {"num_classes": "10"}, "^num_classes='10': expected an integer >= 0$"),
        ("cct_2_3x2_32", {"num_classes": -1}, "^num_classes=-1: expected an integer >= 0$"),
        ("cct_2_3x2_32", {"heads": 0}, "^heads=0: expected an integer >= 1$"),
        ("ga2_cct_7_3x1_32", {"heads": 2.0}, "^heads=2.0: expected an integer >= 1$"),
        ("ga2_cct_7_3x1_32", {"gram_dim": 64.0}, "^gram_dim=64.0: expected an integer >= 1$"),
        ("ga2_cct_7_3x1_32", {"gram_dim": 17}, "gram_dim=17: expected a multiple of 16"),
        ("cct_2_3x2_32", {"img_size": "32"}, "^img_size='32': expected an integer >= 1 or a pair of them"),
        ("cct_2_3x2_32", {"img_size": (32,)}, r"^img_size=\(32,\): expected an integer >= 1 or a pair"),
        ("cct_2_3x2_32", {"img_size": (32, "a")}, r"^img_size=\(32, 'a'\): expected an integer >= 1 or a pair"),
        ("cct_2_3x2_32", {"features_only": True, "out_indices": 9}, "^out_indices=9: expected how many .*, 1 to 2, or"),
        ("cct_2_3x2_32", {"features_only": True, "out_indices": "a"}, "^out_indices='a': expected how many"),
        ("vit_2_4_32", {"img_size": 30}, "img_size=30: expected a multiple of"),
        ("cct_2_3x2_32", {"global_pool": "avg"}, "global_pool=avg: expected None, as the head pools"),
        (
            "cct_2_3x2_32",
            {"global_pool": ""},
            "global_pool=: expected None, as the head pools, or '' with num_classes=0",
        ),
        ("cct_2_3x2_32", {"pretrained": True}, "expected pretrained=False, as no weights are hosted"),
    ],
)
def test_a_wrong_keyword_is_named_in_one_line(shapes_unchecked: None, name: str, keywords: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        on_meta(name, **keywords)
    assert "\n" not in str(caught.value)


def test_weights_of_a_file_are_adapted_to_classes_and_channels(tmp_path) -> None:
    source = timm.create_model("vit_2_4_32")
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    overlay = {"file": str(tmp_path / "weights.pt")}
    state = timm.create_model(
        "vit_2_4_32", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, in_chans=1
    ).state_dict()
    first_conv, new = source.default_cfg["first_conv"] + ".weight", {"head.classifier.weight", "head.classifier.bias"}
    torch.testing.assert_close(state[first_conv], source.state_dict()[first_conv].sum(1, keepdim=True))
    for name, tensor in source.state_dict().items():
        assert name in new | {first_conv} or torch.equal(state[name], tensor), name


# Classifier and head


@every_head
def test_removing_the_classifiers_and_then_the_head(head: HeadConfig) -> None:
    model, x = tiny(head).eval(), images()
    assert model.num_classes == 10 and model.num_features == 32 and model.head_hidden_size == model.head.pooled_width
    tokens = model.forward_features(x)
    assert tokens.shape == (2, 64 + model.backbone.prefix, 32)
    pooled = model.forward_head(tokens, pre_logits=True)
    model.reset_classifier(4)
    assert (
        model.num_classes == 4
        and model(x).shape == (2, 4)
        and model.get_classifier().weight.shape == (2, 4, model.head_hidden_size)
    )
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), pooled)
    model.reset_classifier(0, "")
    assert model.num_classes == 0 and not [name for name, _ in model.named_parameters() if name.startswith("head")]
    assert torch.equal(model(x), tokens) and torch.equal(model.forward_head(tokens), tokens)
    model.load_state_dict(tiny(head).state_dict(), strict=False)
    with pytest.raises(UserError, match="the head was removed"):
        model.reset_classifier(4)


@pytest.mark.parametrize("classes", ["4", 4.0, -1, None])
def test_a_wrong_number_of_classes_leaves_the_classifiers_alone(shapes_unchecked: None, classes: object) -> None:
    model = tiny(SEQPOOL)
    with pytest.raises(UserError, match=f"^num_classes={classes!r}: expected an integer >= 0$"):
        model.reset_classifier(classes)
    assert model.num_classes == 10


@pytest.mark.parametrize("size", ["32", 0, 31.5, (32,), (32, -1), None])
def test_a_wrong_image_size_leaves_the_model_alone(shapes_unchecked: None, size: object) -> None:
    model = tiny(SEQPOOL)
    with pytest.raises(
        UserError, match=r"^img_size=.*: expected an integer >= 1 or a pair of them, \(rows, columns\)$"
    ):
        model.set_input_size(size)
    assert model.backbone.image_size == (16, 16)


def test_a_new_classifier_is_where_the_model_is() -> None:
    model = tiny(SEQPOOL).to(torch.float64)
    model.reset_classifier(4)
    assert model.get_classifier().weight.dtype is torch.float64


def test_a_model_can_be_built_without_classifiers_or_head() -> None:
    x = torch.empty(2, 3, 32, 32, device="meta")
    assert on_meta("cct_2_3x2_32", num_classes=0)(x).shape == (2, 128)
    assert on_meta("cct_2_3x2_32", num_classes=0, global_pool="")(x).shape == (2, 64, 128)


# Features


def block_outputs(model: Classifier, x: Tensor) -> list[Tensor]:
    """The outputs of the blocks, by hooks."""
    seen: list[Tensor] = []
    handles = [block.register_forward_hook(lambda *given: seen.append(given[2])) for block in model.backbone.blocks]
    model(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("head", [SEQPOOL, CLS], ids=lambda head: head.name)
def test_intermediates_are_the_blocks_outputs(head: HeadConfig) -> None:
    model, x = tiny(head, positions=Positions.none).eval(), images(2, 16, 24)
    prefix, blocks = model.backbone.prefix, block_outputs(model, x)
    last, tokens = model.forward_intermediates(x, output_fmt="NLC")
    assert torch.equal(last, model.forward_features(x))
    assert all(torch.equal(a, b[:, prefix:]) for a, b in zip(tokens, blocks, strict=True))
    maps = model.forward_intermediates(x, intermediates_only=True)
    assert [m.shape for m in maps] == [(2, 32, 8, 12)] * 3
    assert all(torch.equal(a.flatten(2).mT, b) for a, b in zip(maps, tokens, strict=True))
    (normed,) = model.forward_intermediates(x, 1, norm=True, output_fmt="NLC", intermediates_only=True)
    assert torch.equal(normed, last[:, prefix:])
    (picked,) = model.forward_intermediates(x, [-2], stop_early=True, intermediates_only=True)
    assert torch.equal(picked, maps[1])
    with_prefix = model.forward_intermediates(x, 1, return_prefix_tokens=True, intermediates_only=True)[0]
    assert torch.equal(with_prefix[1], blocks[2][:, :1]) if prefix else torch.equal(with_prefix, maps[2])
    with pytest.raises(ValueError, match="output_fmt=NHWC: expected NCHW or NLC"):
        model.forward_intermediates(x, output_fmt="NHWC")


@pytest.mark.parametrize("model", [TIMM, RESNET], ids=lambda model: model.name)
def test_intermediates_of_a_timm_backbone_are_its_own(model: ModelConfig) -> None:
    model, x = of(model, SEQPOOL, image_size=64).eval(), images(2, 64, 64)
    last, features = model.forward_intermediates(x)
    assert torch.equal(last, model.forward_features(x))
    timm_features = model.backbone.model.forward_intermediates(x, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(features, timm_features, strict=True))
    assert [f.shape[1:3] for f in features] == [(i["num_chs"], 64 // i["reduction"]) for i in model.feature_info]
    assert all(info["module"] in dict(model.named_modules()) for info in model.feature_info)


@pytest.mark.parametrize("name", ["cct_2_3x2_32", "cct_7_7x2_224", "cct_14_7x2_224", "vit_6_4_32", "ga2_cct_7_3x1_32"])
def test_features_only(name: str) -> None:
    model = on_meta(name, features_only=True)
    side = model.pretrained_cfg["input_size"][-1]
    features = model(torch.empty(2, 3, side, side, device="meta"))
    assert len(features) == min(3, ENTRIES[name].model.depth)
    for feature, channels, reduction in zip(
        features, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert feature.shape == (2, channels, math.ceil(side / reduction), math.ceil(side / reduction))
    assert not [key for key in model.state_dict() if ".head." in key or ".norm." in key.replace("blocks", "")]


def test_features_of_chosen_blocks_train_every_parameter_that_is_left() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_4_4_32", features_only=True, out_indices=(0, -2), drop_path_rate=0.0)
    torch.manual_seed(0)
    whole = timm.create_model("vit_4_4_32", drop_path_rate=0.0)
    x = images(2, 32, 32)
    features = model.eval()(x)
    expected = whole.eval().forward_intermediates(x, [0, 2], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(features, expected, strict=True))
    assert len(model.model.backbone.blocks) == 3
    sum(feature.square().sum() for feature in features).backward()
    assert all(p.grad is not None for p in model.parameters())


# Sizes of images


@pytest.mark.parametrize("kind", [Positions.sine, Positions.none])
def test_a_resized_model_is_one_built_for_that_size(kind: Positions) -> None:
    for head in (SEQATTN, CLS):
        resized, built = tiny(head, positions=kind).eval(), tiny(head, positions=kind, image_size=24).eval()
        resized.set_input_size(24)
        x = images(2, 24, 24)
        assert torch.equal(resized(x), built(x))
        assert resized.state_dict().keys() == built.state_dict().keys()
        resized.set_input_size((12, 20))
        assert resized(images(2, 12, 20)).shape == (2, 10)
    assert kind is Positions.none or torch.equal(resized.backbone.positions, sine_positions(1 + 6 * 10, 32))


def test_learnable_positions_are_resampled_and_the_class_token_s_kept() -> None:
    model = tiny(CLS).eval()
    model.set_input_size((16, 8))
    ramp = torch.arange(8.0).repeat_interleave(4)[:, None].expand(-1, 32)  # the row of each of the 8 x 4 tokens
    own = model.backbone.positions.detach()[:, :1].clone()
    model.backbone.positions.data[0, 1:] = ramp
    model.set_input_size((32, 24))
    rows = model.backbone.positions.detach()[0, 1:].unflatten(0, (16, 12))
    assert torch.equal(model.backbone.positions[:, :1], own) and model.backbone.positions.requires_grad
    assert torch.allclose(rows, rows[:, :1].expand_as(rows), atol=1e-5)
    torch.testing.assert_close(rows[4:12, 0, 0], torch.arange(4, 12) / 2 - 0.25, atol=0.02, rtol=0)
    model(images(2, 32, 24)).sum().backward()
    assert model.backbone.positions.grad.shape == (1, 1 + 16 * 12, 32)


@every_head
def test_only_heads_of_fixed_tokens_refuse_another_size(head: HeadConfig) -> None:
    model = tiny(head).eval()
    if model.head.fixed_tokens:
        with pytest.raises(
            UserError, match=r"^set_input_size\(\(24, 24\)\): the head has a fixed .* img_size=\(24, 24\)$"
        ):
            model.set_input_size(24)
        assert model(images()).shape == (2, 10)
    else:
        model.set_input_size(24)
        assert model(images(2, 24, 24)).shape == (2, 10)


def test_images_of_another_size_are_refused_where_there_are_positions() -> None:
    # 8 x 32 pixels make as many tokens as 16 x 16: without the check their positions would be mixed up silently.
    with pytest.raises(
        ValueError, match="images of 8x32: expected 16x16, the size that the model was built for; call set_input_size"
    ):
        tiny(SEQPOOL)(images(2, 8, 32))
    assert tiny(SEQPOOL, positions=Positions.none)(images(2, 8, 32)).shape == (2, 10)


def test_a_timm_backbone_takes_another_size() -> None:
    for backbone in (TIMM, RESNET):
        model = of(backbone, SEQPOOL, image_size=64).eval()
        model.set_input_size((96, 64))
        x = images(2, 96, 64)
        assert (
            model(x).shape == (2, 10)
            and model.forward_features(x).shape[1] == model.backbone.prefix + model.backbone.tokens
        )


# Tracing


@pytest.fixture
def model(shapes_unchecked: None, request: pytest.FixtureRequest) -> Classifier:
    model = tiny(head_of_yaml(request.param), depth=1)
    model(images(4))  # moves running statistics away from 0 and 1
    return model.eval()


# What is traced beside heads, each of which `test_head_checks.py` and `test_onnx.py` trace: a class token, running
# statistics, positions of any number and of one.
some_models = pytest.mark.parametrize("model", ["cls", "ga", "seqpool", "clip"], indirect=True)
# By tracers that take seconds: `test_compiling.py` compiles a model with running statistics, `test_tracing.py` exports
# heads with them and with a fixed number of tokens.
one_model = pytest.mark.parametrize("model", ["cls"], indirect=True)


@pytest.mark.slow
@one_model
def test_exports_for_any_number_of_images(model: Classifier) -> None:
    exported = torch.export.export(model, (images(3),), dynamic_shapes=({0: torch.export.Dim("images")},), strict=False)
    x = images(5)
    torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.slow
@some_models
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_traces(model: Classifier) -> None:
    x = images(5)
    torch.testing.assert_close(torch.jit.trace(model, images(3))(x), model(x))


@pytest.mark.slow
@one_model
def test_compiles_as_one_graph(model: Classifier) -> None:
    torch.compiler.reset()
    x, compiled = images(3), torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))  # `test_compiling.py` compiles per-head logits


@pytest.mark.slow
@some_models
def test_fx_traces_and_extracts_features(model: Classifier) -> None:
    x, traced = images(3), torch.fx.symbolic_trace(model)
    torch.testing.assert_close(traced(x), model(x))
    torch.testing.assert_close(traced(x, per_head=True), model(x, per_head=True))
    nodes = ["backbone.norm", get_graph_node_names(model)[1][-1]]
    tokens, logits = create_feature_extractor(model, nodes)(x).values()
    assert torch.equal(logits, model(x)) and torch.equal(tokens, model.forward_features(x))
    traced(x).mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [dataclasses.replace(TIMM, options={**TIMM.options, "depth": 1}), RESNET],
    ids=lambda model: model.name,
)
def test_a_timm_backbone_can_be_traced_too(shapes_unchecked: None, backbone: ModelConfig) -> None:
    torch.compiler.reset()
    model, x = of(backbone, GAP, image_size=64).eval(), images(2, 64, 64)
    for traced in (torch.fx.symbolic_trace(model), torch.compile(model, fullgraph=True, backend="eager")):
        torch.testing.assert_close(traced(x), model(x))
