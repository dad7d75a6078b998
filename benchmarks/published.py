"""The reference implementation of cct_2_3x2 as a model of timm, for the side `published` of `peers`.

It is imported before timm's train.py, which then knows `published_cct_2_3x2_32`.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from headsweep.models.classifier import Classifier
from headsweep.models.registry import create
from reference import ReferenceModel


class PublishedModel(nn.Module):
    """A reference model as timm's train.py calls it: mean logits, and a description of the images."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.pretrained_cfg = model.pretrained_cfg
        self.reference = ReferenceModel(model, "seqpool")

    def forward(self, images: Tensor) -> Tensor:
        return self.reference(images).mean(1)


@register_model
def published_cct_2_3x2_32(**options: Any) -> PublishedModel:
    """Build it with the options of `cct_2_3x2_32`."""
    model = create("cct_2_3x2_32", **options)
    assert isinstance(model, Classifier), "features_only is no option of train.py"
    return PublishedModel(model)
