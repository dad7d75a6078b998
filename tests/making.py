"""Small models for the tests of `models/`."""

import dataclasses

import pytest
import timm
from torch import nn

from factories import default_head
from headsweep.config import (
    HEADS,
    Block,
    ClassAttentionConfig,
    CompactConfig,
    GaConfig,
    HeadConfig,
    ModelConfig,
    Positions,
    TimmConfig,
    Tokenizer,
)
from headsweep.models import Classifier, build_model
from headsweep.models.meta_device import on_meta_device

TINY = CompactConfig(
    family="compact",
    name="cct_3_tiny",
    checkpoint=None,
    checkpoint_digest=None,
    width=32,
    depth=3,
    attention_heads=2,
    mlp_ratio=2.0,
    tokenizer=Tokenizer.convolution,
    tokenizer_kernel=3,
    tokenizer_layers=1,
    block=Block.pre_norm,
    positions=Positions.learnable,
    dropout=0.1,
    attention_dropout=0.1,
    drop_path=0.2,
)
TIMM = TimmConfig(
    family="timm",
    name="vit_tiny_patch16_224",
    checkpoint=None,
    checkpoint_digest=None,
    small_stem=False,
    options={"embed_dim": 64, "depth": 2, "num_heads": 2, "patch_size": 4},
)
RESNET = dataclasses.replace(TIMM, name="resnet10t", options={})
CLS, GAP, SEQPOOL, SEQATTN, GA = (
    HeadConfig("cls"),
    HeadConfig("gap"),
    HeadConfig("seqpool"),
    ClassAttentionConfig("seqattn"),
    GaConfig("ga", gram_dim=16),
)


def head_of_yaml(name: str) -> HeadConfig:
    """The head with the options of its YAML file, but a small Gram matrix."""
    return default_head(name, **({"gram_dim": 16} if name in ("ga", "sg") else {}))


HEAD_CONFIGS: list[HeadConfig] = [head_of_yaml(name) for name, spec in HEADS.items() if not spec.is_fitted]
every_head = pytest.mark.parametrize("head", HEAD_CONFIGS, ids=lambda head: head.name)


def of(
    model: ModelConfig, head: HeadConfig, heads: int = 2, seed: int = 0, image_size: int = 16, channels: int = 3
) -> Classifier:
    return build_model(model, head, heads=heads, num_classes=10, image_size=image_size, channels=channels, seed=seed)


def tiny(
    head: HeadConfig, heads: int = 2, seed: int = 0, image_size: int = 16, channels: int = 3, **changes
) -> Classifier:
    return of(dataclasses.replace(TINY, **changes), head, heads, seed, image_size, channels)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_meta(name: str, **keywords) -> Classifier:
    with on_meta_device():
        return timm.create_model(name, **keywords)
