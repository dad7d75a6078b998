"""Every model of headsweep under one timm name, `headsweep`: its keywords are the configuration of backbone and head.

A folder that `headsweep export --format hf` wrote names it in config.json, so that timm builds the model of any run.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from headsweep.config import FileHeadConfig, HeadConfig, ModelConfig, RunConfig
from headsweep.config.records.head import HEADS
from headsweep.config.records.model import BACKBONES
from headsweep.errors import UserError
from headsweep.models.build import build_model
from headsweep.models.classifier import Classifier
from headsweep.text import first_line

NAME = "headsweep"
default_cfgs = generate_default_cfgs({NAME: {"classifier": "head.classifier"}})  # config.json has the rest
T = TypeVar("T")


def architecture(run: RunConfig) -> dict[str, Any]:
    """Return the keywords of the model of a run, as plain values; weights that it started from are not among them.

    Raises:
        UserError: its head is in a plain file, which timm would not find elsewhere.
    """
    if isinstance(run.head, FileHeadConfig):
        raise UserError(
            f"head={run.head.name} is in a plain file: expected a head in a package, which others can install"
        )
    model = dataclasses.replace(run.model, checkpoint=None, checkpoint_digest=None)
    return {
        "model": _plain(model),
        "head": _plain(run.head),
        "heads": run.heads,
        "img_size": run.dataset.image_size,
        "in_chans": run.dataset.channels,
        "num_classes": run.dataset.num_classes,
    }


@register_model
def headsweep(pretrained: bool = False, **keywords: Any) -> nn.Module:
    """Build a model from what `architecture` returns, given as keywords; timm loads the weights if `pretrained`.

    Raises:
        UserError: a keyword is missing or wrong.
    """
    return build_model_with_cfg(_build, NAME, pretrained, **keywords)


def _build(
    *,
    model: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    heads: int = 1,
    img_size: int | tuple[int, int] = 32,
    in_chans: int = 3,
    num_classes: int = 10,
) -> Classifier:
    side = img_size if isinstance(img_size, int) else img_size[0]
    if not isinstance(img_size, int) and tuple(img_size) != (side, side):
        raise UserError(f"{NAME}: img_size={img_size}: expected the side of a square image")
    return build_model(
        _typed("model", "family", model, BACKBONES, ModelConfig),
        _typed("head", "name", head, HEADS, HeadConfig),
        heads=heads,
        num_classes=num_classes,
        image_size=side,
        channels=in_chans,
        seed=int(torch.randint(2**31, ())),  # timm draws initial weights from torch's global generator
    )


def _typed(section: str, kind: str, values: Mapping[str, Any] | None, known: Mapping[str, Any], base: type[T]) -> T:
    """Return the values of a section as the dataclass of its record, which derives from `base`."""
    name = str((values or {}).get(kind))
    if name not in known:
        raise UserError(f"{NAME}: {section}={values}: expected a configuration with {kind}, one of {', '.join(known)}")
    try:
        schema = OmegaConf.structured(known[name].options)
        found = OmegaConf.to_object(OmegaConf.merge(schema, dict(values or {})))
    except OmegaConfBaseException as error:
        raise UserError(f"{NAME}: {section}: {first_line(error)}") from error
    assert isinstance(found, base)
    return found


def _plain(section: ModelConfig | HeadConfig) -> dict[str, Any]:
    """Return a section as JSON can hold it."""
    found = OmegaConf.to_container(OmegaConf.structured(section), enum_to_str=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
