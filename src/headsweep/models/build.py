"""Configuration to model, and what a model costs."""

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from headsweep.config import HeadConfig, ModelConfig
from headsweep.heads import build_head
from headsweep.models.cct import CCT
from headsweep.models.classifier import Classifier
from headsweep.streams import global_stream


def build_model(
    model: ModelConfig,
    head: HeadConfig,
    *,
    heads: int,
    num_classes: int,
    image_size: int,
    channels: int,
    seed: int,
) -> Classifier:
    """The model of a run, on the CPU, in float32.

    Backbone and head draw from streams of their own: with one seed, any two heads start from byte-identical backbones.
    """
    with global_stream(seed, "backbone init"):
        backbone = CCT(model, image_size, channels)
    options = {key: value for key, value in dataclasses.asdict(head).items() if key != "name"}
    with global_stream(seed, "head init"):
        return Classifier(
            backbone,
            build_head(head.name, width=model.width, num_classes=num_classes, heads=heads, **options),
        )


@dataclass(frozen=True)
class Cost:
    """Size and work of a model."""

    parameters: int  # trained ones, head included
    head_parameters: int
    flops: int  # of one image's forward pass, head included; 2 per multiply-add
    head_flops: int


def count_cost(model: Classifier, image_size: int, channels: int) -> Cost:
    """Count on the meta device, where nothing is computed and no fused kernel hides its products."""
    ghost = copy.deepcopy(model).to("meta").eval()
    images = torch.empty(1, channels, image_size, image_size, device="meta")
    with torch.no_grad():
        with FlopCounterMode(display=False) as backbone:
            tokens = ghost.forward_features(images)
        with FlopCounterMode(display=False) as head:
            ghost.forward_head(tokens)
    head_flops = head.get_total_flops()
    return Cost(
        parameters=_count(model),
        head_parameters=_count(model.head),
        flops=backbone.get_total_flops() + head_flops,
        head_flops=head_flops,
    )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
