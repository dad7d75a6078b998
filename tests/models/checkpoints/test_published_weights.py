"""Published weights give the published logits, in both directions, and every change is logged."""

import dataclasses

import pytest
import timm
import torch
from authors_models import authors_model, shake
from torch import Tensor

from headsweep.config import Block, HeadConfig, Positions, TimmConfig
from headsweep.errors import ConfigError, UserError
from headsweep.heads import Head, build_head
from headsweep.models import Classifier, build_model
from headsweep.models.backbone import Backbone
from headsweep.models.checkpoints.fill import resize_positions
from headsweep.models.checkpoints.fit import fit
from headsweep.models.checkpoints.publish import publish
from headsweep.models.meta_device import on_meta_device
from headsweep.models.registry import ARCHITECTURES, ENTRIES

pytestmark = pytest.mark.slow

SEQATTENTION = ["cct_7_3x1_32", "se1_cct_7_3x1_32"]
SEQATTENTION += [f"{head}{k}_cct_7_3x1_32" for head in ("at", "sg", "ga", "seqattn") for k in (1, 2)]
SEQATTENTION += ["ga8_cct_7_3x1_32"]
# A sine table has the size of learned positions; KINDS has both.
OFFICIAL = [name for name in ENTRIES if name[:4] in ("cct_", "cvt_", "vit_") and not name.endswith("_sine")]
# Each layout of a file, both widths, and more tokens than a small image has.
KINDS = ["cct_2_3x2_32", "cct_2_3x2_32_sine", "cct_7_7x2_224", "cvt_2_4_32", "vit_2_4_32", "vit_2_4_32_sine"]
TOLERANCE = 1e-5


def published_and_own(name: str, official: bool, **options) -> tuple[torch.nn.Module, Classifier]:
    """The authors' model with perturbed parameters, and headsweep's of that name, newly initialised."""
    published_model = shake(authors_model(name, official=official, **options))
    size = {"img_size": options["image_size"]} if "image_size" in options else {}
    return published_model, timm.create_model(name, num_classes=10, block=kind_of(name, official), **size).eval()


def kind_of(name: str, official: bool) -> str:
    """The blocks of the code that published the name."""
    return "stream_norm" if official else "no_attention" if name.startswith("sg") else "pre_norm"


def published(model: Classifier) -> dict[str, Tensor]:
    assert isinstance(model.head, Head)
    return publish(model.backbone, model.head)


@pytest.mark.parametrize(
    ("name", "official"),
    [(name, False) for name in SEQATTENTION] + [(name, True) for name in KINDS],
    ids=lambda value: value if isinstance(value, str) else {True: "official", False: "upstream"}[value],
)
@torch.no_grad()
def test_weights_go_both_ways_and_the_logits_of_every_head_stay(name, official):
    published_model, own = published_and_own(name, official)
    size = ENTRIES[name].image_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected = published_model(images)
    assert expected.std() > 0.1
    own.load_state_dict(published_model.state_dict())
    logits = own(images, per_head=True)
    assert logits.shape == expected.shape
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)

    written = published(own)
    before = {key: tensor.clone() for key, tensor in own.state_dict().items()}
    for tensor in (*own.state_dict().values(), *published_model.parameters()):
        if tensor.is_floating_point():
            tensor.zero_()
    own.load_state_dict(written)
    assert all(torch.equal(tensor, before[key]) for key, tensor in own.state_dict().items())
    published_model.load_state_dict(written, strict=True)
    torch.testing.assert_close(published_model(images), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_name_has_the_sizes_of_its_published_file(name):
    with on_meta_device():
        own = timm.create_model(name, num_classes=10, block="stream_norm")
        file = authors_model(name, official=True).state_dict()
    assert {key: tensor.shape for key, tensor in published(own).items()} == {
        key: tensor.shape for key, tensor in file.items()
    }


@pytest.mark.parametrize("head", ["ga", "seqattn", "at", "sg"])
def test_a_published_file_with_one_head_in_its_name_holds_eight(head):
    with on_meta_device():
        published_model = authors_model(f"{head}8_cct_7_3x1_32")
        own = timm.create_model(f"{head}1_cct_7_3x1_32")
    with pytest.raises(UserError) as caught:
        own.load_state_dict(published_model.state_dict())
    assert str(caught.value) == (
        "this file holds 8 heads (upstream builds eight whatever the name says): "
        f"use {head}8_cct_7_3x1_32, in a run head={head} heads=8"
    )


def test_the_unused_classifier_is_dropped_with_a_note_and_written_as_zeros(caplog):
    published_model, own = published_and_own("ga2_cct_7_3x1_32", False)
    own.load_state_dict(published_model.state_dict())
    assert caplog.messages == ["classifier.fc of the file is dropped: the published model never calls it"]
    assert not published(own)["classifier.fc.weight"].any()
    assert published(own)["classifier.fc.weight"].shape == (10, 256)


def test_blocks_become_those_of_the_file_with_a_note(caplog):
    published_model, own = published_and_own("cct_2_3x2_32", True)
    own.backbone.set_block(Block.pre_norm)
    own.load_state_dict(published_model.state_dict())
    assert caplog.messages == ["the model's blocks are now stream_norm, as those of the file"]
    assert {block.kind for block in own.backbone.blocks} == {Block.stream_norm}


def test_the_published_sg_models_do_not_attend(caplog):
    """SeqAttention's sg files were trained without self-attention, and give their logits only without it."""
    published_model = published_and_own("sg2_cct_7_3x1_32", False)[0]
    own = timm.create_model("sg2_cct_7_3x1_32")
    own.load_state_dict(published_model.state_dict())
    assert caplog.messages[-1] == "the model's blocks are now no_attention, as those of the file"
    with pytest.raises(UserError, match="no published code has heads=2 of sg on pre_norm blocks"):
        published(timm.create_model("sg2_cct_7_3x1_32"))


@torch.no_grad()
def test_another_number_of_classes_keeps_the_model_s_classifiers_with_a_note(caplog):
    published_model, _ = published_and_own("cct_2_3x2_32", True, num_classes=7)
    own = timm.create_model("cct_2_3x2_32", num_classes=10)
    drawn = own.head.classifier.weight.clone()
    own.load_state_dict(published_model.state_dict())
    assert caplog.messages == ["the classifiers are newly initialised: 7 classes in the file, 10 in the model"]
    assert torch.equal(own.head.classifier.weight, drawn)
    assert torch.equal(own.backbone.norm.weight, published_model.classifier.norm.weight)


def test_a_model_without_classifiers_takes_the_rest():
    published_model, _ = published_and_own("ga2_cct_7_3x1_32", False)
    own = timm.create_model("ga2_cct_7_3x1_32", num_classes=0)
    own.load_state_dict(published_model.state_dict())
    assert torch.equal(own.backbone.norm.weight, published_model.classifier.norm.weight)


@pytest.mark.parametrize("name", ["vit_2_4_32", "cct_2_3x2_32"])
def test_another_image_size_resizes_the_positions_with_a_note(name, caplog):
    published_model, _ = published_and_own(name, True)
    own = timm.create_model(name, num_classes=10, img_size=64)
    own.load_state_dict(published_model.state_dict())
    prefix = own.backbone.prefix
    assert caplog.messages == ["positions resized bilinearly from 8x8 tokens to 16x16"]
    assert torch.equal(own.backbone.positions[:, :prefix], published_model.classifier.positional_emb[:, :prefix])
    assert own(torch.randn(1, 3, 64, 64)).shape == (1, 10)


def test_resized_positions_keep_their_place():
    """One channel grows with the row, one with the column; the class token has its own."""
    row, column = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    table = torch.cat([torch.full((1, 2), 9.0), torch.stack([row, column], -1).flatten(0, 1)]).unsqueeze(0)
    resized = resize_positions(table, 1, (4, 4), (4, 8))
    assert resized[0, 0].tolist() == [9, 9]
    grid = resized[0, 1:].unflatten(0, (4, 8))
    assert torch.equal(grid[..., 0], torch.arange(4.0).unsqueeze(1).expand(4, 8))
    assert torch.allclose(grid[:, 1:-1, 1], torch.arange(0.25, 3, 0.5).expand(4, 6))


@torch.no_grad()
def test_a_sine_table_is_recognised_and_learned_positions_are_not_taken_for_one(caplog):
    sine, own = published_and_own("cct_2_3x2_32_sine", True)
    own.load_state_dict(sine.state_dict())
    assert caplog.messages == ["the file's positions are the model's own sine table"]
    learned = authors_model("cct_2_3x2_32_sine", official=True, sine=False)
    learned.classifier.positional_emb.normal_()
    with pytest.raises(
        UserError, match="expected a sine table of positions, found learned ones; use positions=learnable"
    ):
        own.load_state_dict(learned.state_dict())
    absent = timm.create_model("cct_2_3x2_32", num_classes=10, positions="none")
    with pytest.raises(UserError, match="the file holds positions and the model has none; use positions=learnable"):
        absent.load_state_dict(sine.state_dict())
    with pytest.raises(UserError, match="the file's positions are none; use positions=none"):
        timm.create_model("cct_2_3x2_32", num_classes=10).load_state_dict(absent.state_dict())


def foreign(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"layer4.{name}": tensor for name, tensor in state.items()}


def without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != "classifier.norm.weight"}


def with_more(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"classifier.blocks.9.norm1.weight": torch.ones(1)}


def too_wide(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"classifier.norm.weight": torch.ones(64)}


BROKEN = {
    foreign: "expected weights of this model in a known layout, found layer4.tokenizer",
    without: "the file lacks classifier.norm.weight",
    with_more: "the model has no place for classifier.blocks.9.norm1.weight",
    too_wide: r"the file does not fit: classifier.norm.weight is \(64,\) and the model's \(128,\)",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_a_failed_load_is_one_line_and_leaves_the_model_as_it_was(damage):
    published_model, own = published_and_own("cct_2_3x2_32", True)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    kinds = [block.kind for block in own.backbone.blocks]
    with pytest.raises(UserError, match=BROKEN[damage]) as caught:
        own.load_state_dict(damage(published_model.state_dict()))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    assert kinds == [block.kind for block in own.backbone.blocks]


def test_own_weights_for_another_head_or_number_of_heads_are_refused_in_one_line():
    four, two = (timm.create_model(f"seqattn{k}_cct_7_3x1_32") for k in (4, 2))
    with pytest.raises(UserError, match=r"expected heads=2, found heads=4 in the file"):
        two.load_state_dict(four.state_dict())
    with pytest.raises(UserError, match=r"the file lacks head\.query.contraction.weight"):
        timm.create_model("ga2_cct_7_3x1_32").load_state_dict(two.state_dict())


@pytest.mark.parametrize(
    ("name", "block", "message"),
    [
        ("gap1_cct_7_3x1_32", "pre_norm", "heads=1 of gap on pre_norm blocks"),
        ("seqpool2_cct_7_3x1_32", "pre_norm", "heads=2 of seqpool on pre_norm blocks"),
        ("ga1_cct_7_3x1_32", "stream_norm", "heads=1 of ga on stream_norm blocks"),
    ],
)
def test_models_that_no_published_code_has_are_not_written(name, block, message):
    with on_meta_device():
        model = timm.create_model(name, block=block)
    with pytest.raises(UserError, match=f"no published code has {message}; use --format headsweep"):
        published(model)


class Other(Backbone):
    """As a package adds one."""

    def forward(self, images):
        raise NotImplementedError


def test_a_backbone_of_a_package_is_not_written_either():
    head = build_head("gap", width=8, num_classes=2, heads=1, tokens=4)
    with pytest.raises(UserError, match="has a head on another backbone than ViT-Lite, CVT and CCT; use"):
        publish(Other(8, 4, 0, 3), head)


@pytest.mark.parametrize("container", [{}, {"state_dict": None, "args": None}, {"state_dict_ema": None, "model": {}}])
def test_timm_s_create_model_loads_published_files(container, tmp_path):
    published_model, own = published_and_own("cct_2_3x2_32", True)
    prefixed = {f"module.{name}": tensor for name, tensor in published_model.state_dict().items()}
    content = {key: prefixed if value is None and key != "args" else value for key, value in container.items()}
    torch.save(content or prefixed, tmp_path / "published_model.pth")
    loaded = timm.create_model("cct_2_3x2_32", checkpoint_path=str(tmp_path / "published_model.pth"))
    own.load_state_dict(published_model.state_dict())
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def start_run(checkpoint, digest=None, model=ARCHITECTURES["cct_2_3x2"], image_size=32) -> Classifier:
    """The model of a run that starts from that file."""
    model = dataclasses.replace(model, checkpoint=str(checkpoint), checkpoint_digest=digest)
    head = HeadConfig("seqpool")
    return build_model(model, head, heads=1, num_classes=10, image_size=image_size, channels=3, seed=0)


@pytest.fixture
def published_file(tmp_path):
    torch.save(published_and_own("cct_2_3x2_32", True)[0].state_dict(), tmp_path / "cct.pth")
    return tmp_path / "cct.pth"


def test_a_run_starts_from_published_weights(published_file):
    started = start_run(published_file)
    assert torch.equal(started.backbone.norm.weight, torch.load(published_file)["classifier.norm.weight"])
    with on_meta_device():
        assert next(start_run(published_file).parameters()).is_meta


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_run_must_be_configured_as_the_file_was_trained(published_file, device):
    pre_norm = dataclasses.replace(ARCHITECTURES["cct_2_3x2"], block=Block.pre_norm)
    sine = dataclasses.replace(ARCHITECTURES["cct_2_3x2"], positions=Positions.sine)
    with torch.device(device):
        with pytest.raises(ConfigError, match=r"model.block=pre_norm: expected stream_norm, the kind of blocks in "):
            start_run(published_file, model=pre_norm)
        with pytest.raises(ConfigError, match=r"model.checkpoint=.*: expected a sine table of positions"):
            start_run(published_file, model=sine)
        with pytest.raises(ConfigError, match=r"model.checkpoint=.*: has changed since the run was planned"):
            start_run(published_file, digest="0" * 64)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
def test_a_backbone_of_timm_takes_timm_s_own_file(name, tmp_path, caplog):
    size = {} if name == "resnet10t" else {"img_size": 64}
    timms = timm.create_model(name, **size).eval()
    torch.save(timms.state_dict(), tmp_path / "timms.pth")
    model = TimmConfig("timm", name, None, None, small_stem=False, options={})
    started = start_run(tmp_path / "timms.pth", model=model, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    features = timms.forward_features(images)
    tokens = features.flatten(2).transpose(1, 2) if features.ndim == 4 else features
    assert torch.equal(started.forward_features(images), tokens)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].endswith("is dropped")
    assert caplog.messages[1] == "the head is newly initialised: the file holds only the backbone"


def test_a_new_head_drops_the_file_s_classifier_without_a_line_and_another_model_is_named(tmp_path, caplog):
    def start(name: str, file: str) -> Classifier:
        model = TimmConfig("timm", name, str(tmp_path / file), None, small_stem=False, options={})
        sizes = {"heads": 1, "num_classes": 10, "image_size": 64, "channels": 3, "seed": 0}
        return build_model(model, HeadConfig("gap"), **sizes, new_head=True)

    torch.save(timm.create_model("test_vit", img_size=64).state_dict(), tmp_path / "vit.pth")
    assert start("test_vit", "vit.pth") and not caplog.messages
    expected = (
        r"model.checkpoint=.*vit.pth: expected weights of resnet10t \(e.g. conv1.0.weight\), found cls_token, pos_"
    )
    with pytest.raises(ConfigError, match=expected):
        start("resnet10t", "vit.pth")


def test_own_weights_load_unchanged(caplog):
    model, other = (timm.create_model("vit_2_4_32") for _ in range(2))
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert not caplog.messages


@torch.no_grad()
def test_own_files_record_their_kind_of_blocks(caplog):
    """Names and shapes are those of other blocks, too: without the record, logits would change."""
    trained = timm.create_model("cct_2_3x2_32", block="stream_norm").eval()
    own = timm.create_model("cct_2_3x2_32", block="pre_norm").eval()
    own.load_state_dict(trained.state_dict())
    assert caplog.messages == ["the model's blocks are now stream_norm, as those of the file"]
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(own(images), trained(images))
    again = timm.create_model("cct_2_3x2_32", block="pre_norm").eval()
    again.load_state_dict(own.state_dict())
    assert torch.equal(again(images), trained(images))


def test_headsweep_s_own_files_record_their_positions():
    given = timm.create_model("cct_2_3x2_32", positions="none").state_dict()
    with pytest.raises(UserError, match="the file's positions are none; use positions=none"):
        timm.create_model("cct_2_3x2_32_sine").load_state_dict(given)


def test_as_many_positions_in_other_rows_and_columns_are_resized(caplog):
    given = timm.create_model("cct_2_3x2_32", img_size=(64, 16)).state_dict()
    timm.create_model("cct_2_3x2_32").load_state_dict(given)
    assert caplog.messages == ["positions resized bilinearly from 16x4 tokens to 8x8"]


def test_headsweep_s_own_files_load_into_a_model_without_classifiers(caplog):
    given = timm.create_model("cct_2_3x2_32").state_dict()
    timm.create_model("cct_2_3x2_32", num_classes=0).load_state_dict(given)
    assert caplog.messages == ["the file's classifiers are dropped: the model has none"]


@pytest.mark.parametrize("odd", [torch.ones(10, 10, dtype=torch.complex64), torch.eye(10).to_sparse()])
def test_odd_tensors_are_refused(odd):
    own = timm.create_model("cct_2_3x2_32")
    with pytest.raises(UserError, match=r"head\.classifier\.bias of the file is .*; expected dense real numbers"):
        own.load_state_dict({**own.state_dict(), "head.classifier.bias": odd})


@pytest.mark.parametrize(("name", "official"), [("ga8_cct_7_3x1_32", False), ("cct_7_3x1_32", True)])
def test_the_backbone_of_a_file_goes_under_any_head(name, official):
    own, other = (
        timm.create_model(each, num_classes=10, block=kind_of(name, official))
        for each in (name, "seqpool2_cct_7_3x1_32")
    )
    for given in (published(own), own.state_dict()):
        found = fit(other.backbone, None, given).state
        assert found.keys() == {f"backbone.{key}" for key in other.backbone.state_dict()}
        assert all(torch.equal(tensor, own.state_dict()[key]) for key, tensor in found.items())
