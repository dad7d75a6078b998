"""Build the model of a configuration, and count its cost."""

import copy
import dataclasses
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from headsweep.config import (
    BACKBONES,
    BackboneMode,
    CompactConfig,
    HeadConfig,
    ModelConfig,
    RunConfig,
    TokensConfig,
)
from headsweep.config.records.head_file import shown
from headsweep.errors import ConfigError, UserError
from headsweep.heads import Head, head_class, head_options
from headsweep.loading import load_class
from headsweep.models.backbone import Backbone
from headsweep.models.checkpoints.checkpoint_file import read_weights
from headsweep.models.checkpoints.fit import fit
from headsweep.models.classifier import Classifier
from headsweep.models.meta_device import on_meta_device
from headsweep.models.user_code import building, user_backbone, user_head
from headsweep.rng import global_stream
from headsweep.tracking.cost import Cost

LOGGER = logging.getLogger("headsweep")


def build_model(
    model: ModelConfig,
    head: HeadConfig,
    *,
    heads: int,
    num_classes: int,
    image_size: int,
    channels: int,
    seed: int,
    tokens: TokensConfig | None = None,
    classifier_norm: bool = False,
    new_head: bool = False,
    only_head: bool = False,
) -> Classifier:
    """Build the model of a run, on the CPU, in float32.

    Backbone and head draw from separate random streams: with one seed, any two heads start from byte-identical
    backbones. With `model.checkpoint` the weights are loaded from that file, with `new_head` those of its backbone
    alone; on the meta device they are only checked. With `model.pretrained` timm loads them, under a new head. With
    `only_head` the backbone is on the meta device and no file is read. `tokens` is what the head reads, by default
    the patch tokens of the last block; weights of the backbone that it does not need are dropped. With
    `classifier_norm` the pooled vectors are batch-normalised.

    Raises:
        ConfigError: the head does not fit the backbone, timm cannot build it, or the checkpoint is not of this model;
            the constructor of a head or backbone of a package or file fails.
    """
    appended = tokens is not None and tokens.class_token
    weights = _weights(model) if model.pretrained and model.checkpoint and not only_head else None
    with global_stream(seed, "backbone init"), on_meta_device() if only_head else nullcontext():
        backbone = _backbone(model, head, image_size, channels, appended, weights)
        if tokens is not None:
            backbone.select(model.name, tokens)
    sizes = {"width": backbone.width, "tokens": backbone.tokens + appended, "num_classes": num_classes, "heads": heads}
    try:
        with global_stream(seed, "head init"), building(user_head(head), ValueError):
            built = Classifier(backbone, _head(head, classifier_norm, sizes), appended)
    except ValueError as error:
        raise ConfigError("head", shown(head), f"does not fit model={model.name}: {error}") from error
    if model.checkpoint is not None and not model.pretrained and not only_head:
        _start_from(Path(model.checkpoint), model, built, new_head)
    backbone.drop_unread()
    return built


def model_of(run: RunConfig, initial: bool = False, only_head: bool = False) -> Classifier:
    """Build the model of a planned run; with `initial`, its checkpoint is not read; `only_head` as in `build_model`.

    Raises:
        ConfigError: as `build_model`, or blocks cannot be recomputed.
    """
    assert run.dataset.num_classes is not None, "filled in when the run was planned"
    model = build_model(
        dataclasses.replace(run.model, checkpoint=None, pretrained=False) if initial else run.model,
        run.head,
        heads=run.heads,
        num_classes=run.dataset.num_classes,
        image_size=run.dataset.image_size,
        channels=run.dataset.channels,
        seed=run.seed,
        tokens=run.tokens,
        classifier_norm=run.classifier_norm,
        new_head=run.backbone is not BackboneMode.train,
        only_head=only_head,
    )
    if run.activation_checkpointing:
        _recompute_blocks(model, run.model)
    return model


def _head(head: HeadConfig, classifier_norm: bool, sizes: dict[str, int]) -> Head:
    built = head_class(head)(**sizes, **head_options(head))
    if classifier_norm:
        built.normalise_pooled()
    return built


def _recompute_blocks(model: Classifier, config: ModelConfig) -> None:
    """Recompute blocks if that changes no result: running statistics would count each batch twice."""
    if any(name.endswith("running_mean") for name, _ in model.backbone.named_buffers()):
        reason = "has batch normalisation, which would count each batch twice"
    else:
        try:
            return model.set_grad_checkpointing()
        except (AssertionError, AttributeError, NotImplementedError):
            reason = "cannot recompute its blocks"
    raise ConfigError("activation_checkpointing", "true", f"expected false: model.name={config.name} {reason}")


def _weights(model: ModelConfig) -> dict[str, Tensor]:
    """Read the file of weights of a planned run. Raises ConfigError."""
    assert model.checkpoint is not None, "filled in when the run was planned"
    try:
        return read_weights(Path(model.checkpoint), model.checkpoint_digest)
    except UserError as error:
        raise ConfigError("model.checkpoint", model.checkpoint, str(error)) from error


def _start_from(checkpoint: Path, model: ModelConfig, built: Classifier, new_head: bool) -> None:
    """Load the file's weights if the configuration matches how they were trained."""
    assert isinstance(built.head, Head)
    weights = _weights(model)
    try:
        fitted = fit(built.backbone, None if new_head else built.head, weights)
    except UserError as error:
        raise ConfigError("model.checkpoint", checkpoint, str(error)) from error
    if isinstance(model, CompactConfig) and fitted.block not in (None, model.block):
        held = fitted.block.value
        raise ConfigError("model.block", model.block.value, f"expected {held}, the kind of blocks in {checkpoint}")
    if next(built.parameters()).is_meta:
        return
    if not new_head:
        built.load_state_dict(weights)
        return
    for note in fitted.notes:
        LOGGER.warning("model.checkpoint=%s: %s", checkpoint, note)
    built.backbone.load_state_dict({name.removeprefix("backbone."): held for name, held in fitted.state.items()})


def _backbone(
    model: ModelConfig,
    head: HeadConfig,
    image_size: int,
    channels: int,
    appended: bool,
    weights: dict[str, Tensor] | None,
) -> Backbone:
    """Build the backbone, with a class token if the head reads one, or it is appended to the patch tokens."""
    class_token = head_class(head).class_token
    kind: Any = load_class(f"model.family={model.family}", BACKBONES[model.family].class_path, Backbone)
    pretrained = {} if weights is None else {"weights": weights}
    with building(user_backbone(model)):
        backbone: Backbone = kind(model, image_size, channels, class_token or appended, **pretrained)
    if appended and not backbone.has_class_token:
        raise ConfigError("tokens.class_token", "true", f"expected false: model.name={model.name} has no class token")
    if class_token and not backbone.has_class_token:
        raise ConfigError("head", head.name, f"expected a head without class token: model.name={model.name} has none")
    return backbone


def count_cost(model: Classifier, image_size: int, channels: int) -> Cost:
    """Count parameters and FLOPs on the meta device, where no fused kernel hides its products."""
    without_data = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
    images = torch.empty(1, channels, image_size, image_size, device="meta")
    with torch.no_grad():
        with FlopCounterMode(display=False) as backbone:
            tokens = without_data.forward_features(images)
        with FlopCounterMode(display=False) as head:
            without_data.forward_head(tokens)
    head_flops = head.get_total_flops()
    return Cost(
        parameters=_count(model),
        head_parameters=_count(model.head),
        flops=backbone.get_total_flops() + head_flops,
        head_flops=head_flops,
    )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
