"""The laws of models: published sizes, byte-identical backbones, timm's manners."""

import dataclasses

import pytest
import timm
import torch
from omegaconf import OmegaConf
from timm.models import group_parameters
from timm.optim import param_groups_weight_decay
from torch import nn

from headsweep import config
from headsweep.config import GaConfig, GapConfig, HeadConfig, ModelConfig, Positions, SeqAttnConfig, SeqPoolConfig
from headsweep.errors import UserError
from headsweep.models import Classifier, build_model, count_cost
from headsweep.models.cct import sine_positions
from headsweep.models.registry import ARCHITECTURES, ENTRIES

TINY = ModelConfig(
    name="tiny",
    width=32,
    depth=3,
    attention_heads=2,
    mlp_ratio=2.0,
    tokenizer_kernel=3,
    tokenizer_layers=1,
    positions=Positions.learnable,
    dropout=0.1,
    attention_dropout=0.1,
    drop_path=0.2,
)
HEAD_CONFIGS: list[HeadConfig] = [
    GapConfig("gap"),
    SeqPoolConfig("seqpool"),
    GaConfig("ga", gram_dim=16),
    SeqAttnConfig("seqattn"),
]
every_head = pytest.mark.parametrize("head", HEAD_CONFIGS, ids=lambda head: head.name)


def tiny(
    head: HeadConfig, heads: int = 2, seed: int = 0, image_size: int = 16, channels: int = 3, **changes
) -> Classifier:
    return build_model(
        dataclasses.replace(TINY, **changes),
        head,
        heads=heads,
        num_classes=10,
        image_size=image_size,
        channels=channels,
        seed=seed,
    )


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_meta(name: str, **keywords) -> Classifier:
    with torch.device("meta"):
        return timm.create_model(name, **keywords)


# docs/heads.md: (name, classes, options) -> parameters, the dead layer of upstream's multi-head models left out.
PUBLISHED = {
    ("cct_2_3x2_32", 10, 0): 283_723,
    ("cct_4_3x2_32", 10, 0): 482_123,
    ("cct_6_3x1_32", 10, 0): 3_233_803,
    ("cct_7_3x1_32", 10, 0): 3_760_139,
    ("cct_7_3x2_32", 10, 0): 3_853_259,
    ("cct_7_3x1_32", 100, 0): 3_783_269,
    ("cct_14_7x2_224", 1000, 0): 22_367_273,
    ("seqattn1_cct_7_3x1_32", 100, 0): 4_114_021,
    ("seqattn2_cct_7_3x1_32", 100, 0): 4_470_730,
    ("seqattn4_cct_7_3x1_32", 100, 0): 5_184_148,
    ("seqattn8_cct_7_3x1_32", 100, 0): 6_610_984,
    ("ga1_cct_7_3x1_32", 100, 64): 4_183_332,
    ("ga2_cct_7_3x1_32", 100, 64): 4_609_352,
    ("ga4_cct_7_3x1_32", 100, 64): 5_461_392,
    ("ga8_cct_7_3x1_32", 100, 64): 7_165_472,
    ("ga2_cct_7_3x1_32", 100, 192): 5_670_984,
    ("ga2_cct_7_3x1_32", 100, 32): 4_507_784,
}


@pytest.mark.parametrize(("name", "classes", "gram_dim"), PUBLISHED)
def test_published_parameter_counts(name: str, classes: int, gram_dim: int) -> None:
    options = {"gram_dim": gram_dim} if gram_dim else {}
    model = on_meta(name, num_classes=classes, **options)
    assert parameters(model) == PUBLISHED[name, classes, gram_dim]


def test_architectures_agree_with_the_yaml_files() -> None:
    folder = config.PROJECT_ROOT / "conf" / "model"
    schema = OmegaConf.structured(ModelConfig)
    read = {
        path.stem: OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(path)))
        for path in folder.glob("cct_*.yaml")
    }
    assert read == ARCHITECTURES


@pytest.mark.parametrize("name", ENTRIES)
def test_every_name_is_registered_with_its_published_classes(name: str) -> None:
    entry = ENTRIES[name]
    assert name in timm.list_models(name)
    model = on_meta(name)
    images = torch.empty(2, 3, entry.image_size, entry.image_size, device="meta")
    assert model(images).shape == (2, entry.num_classes)
    assert model(images, per_head=True).shape == (2, entry.heads or 1, entry.num_classes)
    assert model.pretrained_cfg["input_size"] == (3, entry.image_size, entry.image_size)
    modules = dict(model.named_modules())
    assert isinstance(modules[model.default_cfg["first_conv"]], nn.Conv2d)
    assert modules[model.default_cfg["classifier"]] is model.get_classifier()


def test_names_cover_what_was_published() -> None:
    small = {f"{depth}_32" for depth in ("2_3x2", "4_3x2", "6_3x1", "6_3x2", "7_3x1", "7_3x2")}
    plain = small | {"7_7x2_224", "14_7x2_224", "14_7x2_384"}
    names = {f"cct_{name}{suffix}" for name in plain for suffix in ("", "_sine")}
    names |= {f"{head}{k}_cct_7_3x1_32" for head in ("gap", "seqpool", "ga", "seqattn") for k in (1, 2, 4, 8)}
    assert names == set(ENTRIES)


def test_a_number_in_a_name_cannot_be_contradicted() -> None:
    with pytest.raises(UserError, match="heads=8 contradicts the name, which says 1"):
        timm.create_model("ga1_cct_7_3x1_32", heads=8)
    assert on_meta("cct_2_3x2_32", heads=3).head.heads == 3


def test_pretrained_weights_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="no pretrained weights are hosted") as caught:
        timm.create_model("cct_2_3x2_32", pretrained=True)
    assert "\n" not in str(caught.value)


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
    assert model.pretrained_cfg["crop_pct"] == 0.5


@every_head
def test_forward_is_the_mean_over_heads_in_training_and_evaluation(head: HeadConfig) -> None:
    model, images = tiny(head, heads=3, dropout=0.0, attention_dropout=0.0, drop_path=0.0), torch.randn(4, 3, 16, 16)
    for training in (True, False):
        model.train(training)
        each = model(images, per_head=True)
        assert each.shape == (4, 3, 10)
        torch.testing.assert_close(model(images), each.mean(1))
        torch.testing.assert_close(model.forward_head(model.forward_features(images)), each.mean(1))


@every_head
@pytest.mark.parametrize(("image_size", "channels"), [(8, 1), (17, 3), (28, 4)])
def test_any_image_size_and_channel_count(head: HeadConfig, image_size: int, channels: int) -> None:
    model = tiny(head, image_size=image_size, channels=channels).eval()
    assert model(torch.randn(2, channels, image_size, image_size)).shape == (2, 10)


def test_positions() -> None:
    learnable, sine, none = (tiny(HEAD_CONFIGS[1], positions=kind).backbone for kind in Positions)
    assert learnable.positions.requires_grad and learnable.positions.shape == (1, 64, 32)
    assert learnable.positions.std().item() == pytest.approx(0.2, rel=0.1)
    assert torch.equal(sine.positions, sine_positions(64, 32))
    assert not none.positions.any()
    assert {"positions"} == {name for name, _ in learnable.named_parameters()} - {
        name for name, _ in sine.named_parameters()
    }


def test_sine_positions_alternate_sine_and_cosine() -> None:
    positions = sine_positions(5, 8)[0]
    assert positions[3, 4].item() == pytest.approx(torch.sin(torch.tensor(3 / 10000 ** (4 / 8))).item())
    assert positions[3, 5].item() == pytest.approx(torch.cos(torch.tensor(3 / 10000 ** (4 / 8))).item())


def test_one_seed_gives_byte_identical_backbones_whatever_the_head() -> None:
    reference = tiny(HEAD_CONFIGS[0], heads=1).backbone.state_dict()
    for head in HEAD_CONFIGS:
        for heads in (1, 4):
            state = tiny(head, heads=heads).backbone.state_dict()
            assert all(torch.equal(state[key], reference[key]) for key in reference)
    other = tiny(HEAD_CONFIGS[0], heads=1, seed=1).backbone.state_dict()
    assert not torch.equal(other["positions"], reference["positions"])


def test_one_seed_gives_byte_identical_heads_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = tiny(HEAD_CONFIGS[3])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    again, other = tiny(HEAD_CONFIGS[3]), tiny(HEAD_CONFIGS[3], seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.classifier.weight, other.head.classifier.weight)


def test_drop_path_is_linear_in_depth() -> None:
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in tiny(HEAD_CONFIGS[0]).backbone.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_dropout_and_drop_path_are_off_in_evaluation() -> None:
    model, images = tiny(HEAD_CONFIGS[1]), torch.randn(4, 3, 16, 16)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@every_head
def test_no_stacked_vector_decays(head: HeadConfig) -> None:
    model = tiny(head)
    named = dict(model.named_parameters())
    assert model.no_weight_decay() <= set(named)
    kept, decayed = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert (kept["weight_decay"], decayed["weight_decay"]) == (0.0, 0.05)
    decayed_ids = {id(p) for p in decayed["params"]}
    per_branch = {name: p.ndim - name.startswith("head.") for name, p in named.items()}
    assert {name for name, p in named.items() if id(p) in decayed_ids} == {n for n, d in per_branch.items() if d > 1}


@every_head
def test_state_dict_round_trip(head: HeadConfig) -> None:
    model, other, images = tiny(head), tiny(head, seed=1), torch.randn(4, 3, 16, 16)
    model(images)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model.eval()(images), other.eval()(images))


def test_reset_classifier_and_feature_sizes() -> None:
    model, images = tiny(HEAD_CONFIGS[3]).eval(), torch.randn(2, 3, 16, 16)
    assert model.num_classes == 10 and model.num_features == model.head_hidden_size == 32
    assert model.forward_features(images).shape == (2, 64, 32)
    pooled = model.forward_head(model.forward_features(images), pre_logits=True)
    model.reset_classifier(4)
    assert model.num_classes == 4 and model(images).shape == (2, 4)
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), pooled)
    with pytest.raises(ValueError, match="the head pools"):
        model.reset_classifier(4, "avg")


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    images, gradients = torch.randn(4, 3, 16, 16), []
    for enable in (False, True):
        model = tiny(HEAD_CONFIGS[3])
        model.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        model(images).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_group_matcher_orders_layers_from_stem_to_head() -> None:
    model = tiny(HEAD_CONFIGS[1])
    layer = group_parameters(model, model.group_matcher(), reverse=True)
    names = [
        "backbone.positions",
        "backbone.blocks.0.norm1.weight",
        "backbone.blocks.2.norm1.weight",
        "backbone.norm.weight",
    ]
    depths = [layer[name] for name in [*names, "head.classifier.weight"]]
    assert depths == sorted(depths) and len(set(depths[:3])) == 3 and depths[4] > depths[2]


def test_bfloat16_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = tiny(HEAD_CONFIGS[2])(torch.randn(4, 3, 16, 16))
    logits.sum().backward()
    assert logits.isfinite().all()


def cost_of(name: str) -> dict[str, int]:
    return dataclasses.asdict(count_cost(timm.create_model(name, num_classes=100), 32, 3))


def test_cost_of_the_backbone_and_its_own_head() -> None:
    cost = cost_of("cct_7_3x1_32")
    assert cost["parameters"] == 3_783_269 and cost["head_parameters"] == 25_957
    # docs/heads.md: 7.076 G forward and backward. The backward pass has two products for each of the forward
    # pass, except that the gradient of the images is not needed: 32 x 32 x 256 x 27 multiply-adds.
    assert 3 * cost["flops"] - 2 * 32 * 32 * 256 * 27 == pytest.approx(7.076e9, rel=1e-4)
    assert cost["head_flops"] == 2 * (2 * 256 * 256 + 256 * 100)


def test_cost_of_eight_heads_by_the_one_query_algebra() -> None:
    # docs/heads.md: forward and backward 74 and 146 MFLOP with the classifier left out of neither.
    assert 3 * cost_of("seqattn8_cct_7_3x1_32")["head_flops"] == pytest.approx(74e6, rel=0.06)
    assert 3 * cost_of("ga8_cct_7_3x1_32")["head_flops"] == pytest.approx(146e6, rel=0.06)


def test_counting_leaves_the_model_alone() -> None:
    model = tiny(HEAD_CONFIGS[2])
    count_cost(model, 16, 3)
    assert model.training and next(model.parameters()).device.type == "cpu"
