"""Models have the published sizes, byte-identical backbones, and accept any image size."""

import dataclasses
from functools import cache

import pytest
import timm
import torch
from omegaconf import OmegaConf
from timm.data import resolve_data_config
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from headsweep import config
from headsweep.config import CompactConfig, HeadConfig, ModelConfig, Positions
from headsweep.heads import HEADS
from headsweep.models import count_cost
from headsweep.models.compact.transformer import sine_positions
from headsweep.models.drop_path import DropPath, draw_at_once
from headsweep.models.meta_device import on_meta_device
from headsweep.models.registry import ARCHITECTURES, ENTRIES
from making import CLS, GA, GAP, HEAD_CONFIGS, SEQATTN, SEQPOOL, TIMM, TINY, every_head, of, on_meta, parameters, tiny

# docs/heads.md: (name, classes, options) -> parameters, the dead layer of upstream's multi-head models left out.
PUBLISHED = {
    ("cct_2_3x2_32", 10, 0): 283_723,
    ("cct_4_3x2_32", 10, 0): 482_123,
    ("cct_6_3x1_32", 10, 0): 3_233_803,
    ("cct_7_3x1_32", 10, 0): 3_760_139,
    ("cct_7_3x2_32", 10, 0): 3_853_259,
    ("cct_7_3x1_32", 100, 0): 3_783_269,
    ("cct_14_7x2_224", 1000, 0): 22_367_273,
    ("vit_7_4_32", 10, 0): 3_716_874,
    ("cvt_7_4_32", 10, 0): 3_716_619,
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
    ("at1_cct_7_3x1_32", 100, 0): 4_146_660,
    ("at4_cct_7_3x1_32", 100, 0): 5_216_016,
    ("sg1_cct_7_3x1_32", 100, 64): 3_852_580,
    ("sg4_cct_7_3x1_32", 100, 64): 4_138_384,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes", "gram_dim"), PUBLISHED)
def test_published_parameter_counts(name: str, classes: int, gram_dim: int) -> None:
    options = {"gram_dim": gram_dim} if gram_dim else {}
    model = on_meta(name, num_classes=classes, **options)
    assert parameters(model) == PUBLISHED[name, classes, gram_dim]


def test_architectures_agree_with_the_yaml_files() -> None:
    folder = config.PROJECT_ROOT / "conf" / "model"
    schema = OmegaConf.structured(CompactConfig)
    loaded = {path.stem: OmegaConf.load(path) for path in folder.glob("*.yaml")}
    read = {
        name: OmegaConf.to_object(OmegaConf.merge(schema, values))
        for name, values in loaded.items()
        if values.family == "compact"
    }
    assert read == ARCHITECTURES


def test_every_name_is_registered() -> None:
    assert set(ENTRIES) <= set(timm.list_models())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.heads in (None, 2)])
def test_every_model_has_its_published_classes_and_input(name: str) -> None:
    entry = ENTRIES[name]
    model = on_meta(name)
    assert model.get_classifier().weight.shape[:2] == (entry.heads or 1, entry.num_classes)
    assert model.backbone.image_size == (entry.image_size, entry.image_size)
    data, small = resolve_data_config(model=model), name.removesuffix("_sine").endswith("_32")
    assert data["input_size"] == (3, *2 * (int(name.removesuffix("_sine").split("_")[-1]),))
    assert data["mean"][0] == (0.4914 if small else 0.485) and data["std"][0] == (0.2470 if small else 0.229)
    assert (data["interpolation"], data["crop_pct"]) == ("bicubic", 1.0 if small else 0.9)
    modules = dict(model.named_modules())
    assert isinstance(modules[model.default_cfg["first_conv"]], nn.Conv2d)
    assert modules[model.default_cfg["classifier"]] is model.get_classifier()


def test_names_cover_what_was_published() -> None:
    small = {f"{depth}_32" for depth in ("2_3x2", "4_3x2", "6_3x1", "6_3x2", "7_3x1", "7_3x2")}
    plain = small | {"7_7x2_224", "14_7x2_224", "14_7x2_384"}
    plain = {f"cct_{name}" for name in plain} | {
        f"{kind}_{depth}_4_32" for kind in ("vit", "cvt") for depth in (2, 4, 6, 7)
    }
    names = {f"{name}{suffix}" for name in plain for suffix in ("", "_sine")}
    names |= {f"{head}{k}_cct_7_3x1_32" for head in HEADS for k in (1, 2, 4, 8)}
    assert names == set(ENTRIES)


@every_head
def test_forward_is_the_mean_over_heads_in_training_and_evaluation(head: HeadConfig) -> None:
    model, images = tiny(head, heads=3, dropout=0.0, attention_dropout=0.0, drop_path=0.0), torch.randn(4, 3, 16, 16)
    for training in (True, False):
        model.train(training)
        each = model(images, per_head=True)
        assert each.shape == (4, 3, 10)
        torch.testing.assert_close(model(images), each.mean(1))
        torch.testing.assert_close(model.forward_head(model.forward_features(images)), each.mean(1))


@pytest.mark.parametrize(
    ("head", "image_size", "channels"),
    [*((head, 17, 3) for head in HEAD_CONFIGS), (GA, 8, 1), (GA, 28, 4)],
    ids=lambda value: getattr(value, "name", value),
)
def test_any_image_size_and_channel_count(head: HeadConfig, image_size: int, channels: int) -> None:
    model = tiny(head, image_size=image_size, channels=channels).eval()
    assert model(torch.randn(2, channels, image_size, image_size)).shape == (2, 10)


def test_positions() -> None:
    learnable, sine, none = (tiny(SEQPOOL, positions=kind).backbone for kind in Positions)
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


@cache
def backbone_of_gap(family: str) -> dict[str, Tensor]:
    return of({"compact": TINY, "timm": TIMM}[family], GAP, heads=1).backbone.state_dict()


@pytest.mark.parametrize(
    ("model", "head"), [*((TINY, head) for head in HEAD_CONFIGS), (TIMM, CLS), (TIMM, GA)], ids=lambda value: value.name
)
def test_one_seed_gives_byte_identical_backbones_whatever_the_head(model: ModelConfig, head: HeadConfig) -> None:
    reference, state = backbone_of_gap(model.family), of(model, head, heads=4).backbone.state_dict()
    if "class_token" in state:  # of the compact transformer; timm's has one for any head
        del state["class_token"]
        state["positions"] = state["positions"][:, 1:]
    assert state.keys() == reference.keys()
    assert all(torch.equal(state[key], reference[key]) for key in reference)


def test_another_seed_gives_another_backbone() -> None:
    first, second = (tiny(GAP, seed=seed).backbone.state_dict()["positions"] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_one_seed_gives_byte_identical_heads_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = tiny(SEQATTN)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    again, other = tiny(SEQATTN), tiny(SEQATTN, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.classifier.weight, other.head.classifier.weight)


def test_drop_path_is_linear_in_depth() -> None:
    rates = [block.drop_path.drop_prob for block in tiny(GAP).backbone.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(DropPath(0.25).eval()(torch.ones(4, 2)), torch.ones(4, 2))
    assert torch.equal(DropPath(0.0).train()(torch.ones(4, 2)), torch.ones(4, 2))


def test_dropout_and_drop_path_are_off_in_evaluation() -> None:
    model, images = tiny(SEQPOOL), torch.randn(4, 3, 16, 16)
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


def test_bfloat16_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = tiny(GA)(torch.randn(4, 3, 16, 16))
    logits.sum().backward()
    assert logits.isfinite().all()


def cost_of(name: str) -> dict[str, int]:
    return dataclasses.asdict(count_cost(on_meta(name, num_classes=100), 32, 3))


def test_cost_of_the_backbone_and_its_own_head() -> None:
    cost = cost_of("cct_7_3x1_32")
    assert cost["parameters"] == 3_783_269 and cost["head_parameters"] == 25_957
    # docs/heads.md: 7.076 G forward and backward. The backward pass has two products for each of the forward
    # pass, except that the gradient of the images is not needed: 32 x 32 x 256 x 27 multiply-adds.
    assert 3 * cost["flops"] - 2 * 32 * 32 * 256 * 27 == pytest.approx(7.076e9, rel=1e-4)
    assert cost["head_flops"] == 2 * (2 * 256 * 256 + 256 * 100)


@pytest.mark.slow
def test_cost_of_eight_heads_by_the_one_query_algebra() -> None:
    # docs/heads.md: forward and backward 74 and 146 MFLOP with the classifier left out of neither.
    assert 3 * cost_of("seqattn8_cct_7_3x1_32")["head_flops"] == pytest.approx(74e6, rel=0.06)
    assert 3 * cost_of("ga8_cct_7_3x1_32")["head_flops"] == pytest.approx(146e6, rel=0.06)


def test_counting_leaves_the_model_alone() -> None:
    model = tiny(GA)
    count_cost(model, 16, 3)
    assert model.training and next(model.parameters()).device.type == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "kind"),
    [*((head, Positions.sine) for head in HEAD_CONFIGS), (GA, Positions.learnable), (GA, Positions.none)],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_model_of_the_meta_device_takes_weights(head: HeadConfig, kind: Positions) -> None:
    """What is in no state dict is computed anew: of the gram heads, of fixed positions, of stochastic depth."""
    source, images = tiny(head, positions=kind), torch.randn(4, 3, 16, 16)
    with on_meta_device():
        assigned, filled = (tiny(head, positions=kind) for _ in range(2))
    for tensor in filled.to_empty(device="cpu").buffers():
        tensor.zero_()  # `to_empty` leaves anything there
    expected = source.eval()(images)
    for model in (assigned, filled):
        model.load_state_dict(source.state_dict(), assign=model is assigned)
        assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
        torch.testing.assert_close(dict(model.named_buffers()), dict(source.named_buffers()), rtol=0, atol=0)
        assert torch.equal(model.eval()(images), expected)


def test_one_draw_for_all_blocks_drops_as_draws_of_each_do() -> None:
    torch.manual_seed(0)
    factors = draw_at_once(torch.tensor([1.0, 0.75]), 2, torch.empty(4000, 3, 8))
    assert factors.shape == (2, 2, 4000, 1, 1)
    assert [each.unique().tolist() for each in factors] == [[1], pytest.approx([0, 4 / 3])]
    assert factors[1].mean((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=0.03)


def test_factors_of_one_draw_are_those_of_the_branches_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; also where blocks are recomputed. In evaluation, nothing is drawn."""
    model, images = tiny(SEQPOOL), torch.randn(4, 3, 16, 16)
    drawn = draw_at_once(torch.full((len(model.backbone.blocks),), 0.5), 2, torch.empty(4, 1, 1))
    in_turn = iter(drawn.flatten(0, 1))
    with monkeypatch.context() as patched:
        patched.setattr(DropPath, "draw", lambda *_: next(in_turn))
        torch.manual_seed(0)  # of attention's dropout
        expected = model.backbone(images)
    monkeypatch.setattr(DropPath, "draw", None)
    assert torch.equal(model.eval().backbone(images), model.backbone(images))
    monkeypatch.setattr(type(model.backbone), "_factors", lambda self, tokens: list(drawn))
    for recomputed in (False, True):
        model.train().set_grad_checkpointing(recomputed)
        torch.manual_seed(0)
        assert torch.equal(model.backbone(images), expected)
