"""What a head reads: tokens of other blocks than the last, several of them, with and without norm and class token."""

import dataclasses

import pytest
import torch
from torch import Tensor

from composing import compose_run
from headsweep.config import TimmConfig, TokensConfig
from headsweep.config.records.model import TokenType
from headsweep.errors import ConfigError
from headsweep.models import Classifier, build_model
from headsweep.models.frozen import Probe
from headsweep.plan.fingerprint import fingerprint
from making import CLS, GAP, RESNET, SEQATTN, TIMM, TINY

pytestmark = pytest.mark.slow

VIT = dataclasses.replace(TIMM, options={**TIMM.options, "depth": 3})
CAIT = dataclasses.replace(TIMM, name="cait_xxs24_224", options={**TIMM.options, "num_heads": 4})
LATE_NORM = dataclasses.replace(VIT, options={**VIT.options, "fc_norm": True})  # its norm comes after the pooling


def tokens(layer: int = -1, last: int = 1, norm: bool = True, class_token: bool = False) -> TokensConfig:
    return TokensConfig(TokenType.bfloat16, layer, last, norm, class_token, views=0)


def built(model, read: TokensConfig, head=GAP, image_size: int = 16, norm: bool = False) -> Classifier:
    sizes = {"heads": 2, "num_classes": 10, "image_size": image_size, "channels": 3, "seed": 0}
    return build_model(model, head, **sizes, tokens=read, classifier_norm=norm).eval()


def images(size: int = 16) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, size, size)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("head", [GAP, CLS], ids=["without", "with"])
def test_blocks_of_a_compact_transformer_are_those_of_a_loop(norm, head):
    whole = built(TINY, tokens(), head).backbone
    stream, expected = whole._embed(images()), []
    for block in whole.blocks[:2]:
        stream = block(stream)
        expected.append(whole.norm(stream) if norm else stream)
    model = built(TINY, tokens(1, 2, norm), head)
    assert torch.equal(model.forward_features(images()), torch.cat(expected, -1))
    assert len(model.backbone.blocks) == 2 and model.head.width == 64


@pytest.mark.parametrize("norm", [True, False])
def test_blocks_of_a_vision_transformer_are_those_of_timm(norm):
    whole = built(VIT, tokens()).backbone.model
    pairs = whole.get_intermediate_layers(images(), 2, return_prefix_tokens=True, norm=norm)
    expected = torch.cat([torch.cat([prefix, patches], 1) for patches, prefix in pairs], -1)
    assert torch.equal(built(VIT, tokens(-1, 2, norm)).forward_features(images()), expected)
    assert torch.equal(built(VIT, tokens(-2, 1, norm)).forward_features(images()), expected[..., :64])


@pytest.mark.parametrize("model", [VIT, LATE_NORM, TINY], ids=["norm", "late norm", "compact"])
def test_the_last_block_read_as_one_of_two_is_the_last_block(model):
    alone, both = built(model, tokens()), built(model, tokens(last=2))
    torch.testing.assert_close(
        both.forward_features(images())[..., alone.head.width :], alone.forward_features(images())
    )


def test_stages_of_a_convolutional_model_are_those_of_timm():
    whole = built(RESNET, tokens(), image_size=64).backbone.model
    feature = whole.forward_intermediates(images(64), [3], intermediates_only=True)[0]
    model = built(RESNET, tokens(3, norm=False), image_size=64)
    assert torch.equal(model.forward_features(images(64)), feature.flatten(2).transpose(1, 2))
    assert (model.backbone.tokens, model.backbone.width) == (16, feature.shape[1])
    model.set_input_size(128)
    assert model(images(128)).shape == (2, 10) and model.backbone.tokens == 64


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("model", [VIT, LATE_NORM, TINY], ids=["norm", "late norm", "compact"])
def test_every_weight_that_is_left_is_trained(model, norm):
    found = built(model, tokens(-2, 2, norm), SEQATTN).train()
    found(images()).square().sum().backward()
    assert [name for name, parameter in found.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("model", [VIT, TINY], ids=["timm", "compact"])
def test_the_weights_that_are_left_are_loaded_again(model):
    first, second = built(model, tokens(0, norm=False)), built(model, tokens(0, norm=False))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(images()), first(images()))
    assert sum(p.numel() for p in first.parameters()) < sum(p.numel() for p in built(model, tokens()).parameters())


@pytest.mark.parametrize("model", [VIT, TINY], ids=["timm", "compact"])
def test_an_appended_class_token_is_one_more_token_to_pool(model):
    found = built(model, tokens(class_token=True))
    class_token, patches = found.forward_features(images()).split([1, found.backbone.tokens], 1)
    read = torch.cat([patches, class_token], 1)
    assert torch.equal(found.read_by_head(found.forward_features(images())), read)
    expected = found.head.classifier(read.mean(1, keepdim=True).expand(-1, 2, -1)).mean(1)
    torch.testing.assert_close(found(images()), expected)
    torch.testing.assert_close(Probe(found)(found.forward_features(images())), expected)


def test_registers_are_neither_patch_nor_class_token():
    registers = dataclasses.replace(VIT, options={**VIT.options, "reg_tokens": 4})
    found = built(registers, tokens(), CLS)
    read = found.forward_features(images())
    assert found.backbone.prefix == 5
    torch.testing.assert_close(Probe(found)(read), found.head(torch.cat([read[:, :1], read[:, 5:]], 1)).mean(1))


def test_pooled_vectors_are_normalised_over_the_batch():
    found = built(VIT, tokens(), SEQATTN, norm=True).train()
    read = torch.randn(8, 16, 64)
    pooled = found.head.pool(read).detach()
    normal = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(found.head(read), found.head.classifier(normal))
    found.eval()
    mean, variance = 0.1 * pooled.mean(0), 0.9 + 0.1 * pooled.var(0)
    torch.testing.assert_close(
        found.head(read), found.head.classifier((pooled - mean) / (variance + 1e-6).sqrt()), rtol=1e-4, atol=1e-5
    )
    assert {"head.pooled_norm.running_mean", "head.pooled_norm.running_var"} < found.state_dict().keys()
    assert "pooled_norm" not in "".join(built(VIT, tokens(), SEQATTN).state_dict())


@pytest.mark.parametrize(
    ("model", "read", "head", "message"),
    [
        (TINY, tokens(3), GAP, r"tokens.layer=3: expected a number in \[-3, 2\]: model.name=cct_3_tiny has 3"),
        (VIT, tokens(-4), GAP, r"tokens.layer=-4: expected a number in \[-3, 2\]"),
        (VIT, tokens(1, 3), GAP, "tokens.last=3: expected at most 2, the blocks of .* up to tokens.layer=1"),
        (RESNET, tokens(-2), GAP, "tokens.norm=true: expected false with tokens.layer=-2: .* its last stage"),
        (RESNET, tokens(-1, 2, False), GAP, "tokens.last=2: expected 1: the stages of .* differ in width and grid"),
        (CAIT, tokens(-1, 2), GAP, r"tokens.last=2: expected 1: model.name=cait_xxs24_224 gives only .* last layer"),
        (CAIT, tokens(norm=False), GAP, "tokens.norm=false: expected true: .*, after the final norm"),
        (RESNET, tokens(class_token=True), GAP, "tokens.class_token=true: expected false: .* has no class token"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(model, read, head, message):
    with pytest.raises(ConfigError, match=message):
        built(model, read, head, image_size=64 if isinstance(model, TimmConfig) and model is RESNET else 16)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tokens.last=0"], "tokens.last=0: expected an integer >= 1"),
        (["tokens.class_token=true", "head=cls"], "tokens.class_token=true: expected false: head=cls reads the class"),
        (["classifier_norm=true", "batch_size=1"], "batch_size=1: expected >= 2 .*: classifier_norm=true normalises"),
    ],
)
def test_what_excludes_each_other_is_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_run(*overrides)


def test_what_a_head_reads_is_part_of_a_run_and_the_defaults_are_not():
    keys = ["tokens.layer=-2", "tokens.last=2", "tokens.norm=false", "tokens.class_token=true", "classifier_norm=true"]
    assert len({fingerprint(compose_run(*given)) for given in ([], *([key] for key in keys))}) == 6
    defaults = ["tokens.layer=-1", "tokens.last=1", "tokens.norm=true", "classifier_norm=false"]
    assert fingerprint(compose_run(*defaults)) == fingerprint(compose_run())
