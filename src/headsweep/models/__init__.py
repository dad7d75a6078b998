"""Backbones with any head; importing this package registers them with timm."""

from headsweep.models import configured as configured
from headsweep.models import registry as registry
from headsweep.models.build import build_model, count_cost, model_of
from headsweep.models.classifier import Classifier
from headsweep.tracking.cost import Cost

__all__ = ["Classifier", "Cost", "build_model", "count_cost", "model_of"]
