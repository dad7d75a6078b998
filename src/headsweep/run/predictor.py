"""The model of a run for use elsewhere: from raw pixels to logits, logged to the run's tracker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headsweep.config import DatasetConfig, RunConfig
from headsweep.data.augment import Normaliser
from headsweep.models import Classifier
from headsweep.plan.frozen import frozen
from headsweep.run.load_model import trained
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.tracker import ExportedModel
from headsweep.tracking.trackers import tracker_of


class Predictor(nn.Module):
    """A classifier of unnormalised images: it normalises them as the run did."""

    mean: Tensor
    scale: Tensor

    def __init__(self, classifier: Classifier, dataset: DatasetConfig) -> None:
        super().__init__()
        normaliser = Normaliser(dataset, torch.device("cpu"))
        self.classifier = classifier
        self.register_buffer("mean", normaliser.mean)
        self.register_buffer("scale", normaliser.scale)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels (b c h w) from 0 to 255, at the run's image size, in float32, to mean logits (b l)."""
        return self.classifier((images - self.mean) * self.scale)


def predictor(folder: RunFolder, best: bool | None = None) -> ExportedModel:
    """Return the run's best weights, or the last; by default the last only where no images were held out."""
    dataset = frozen(folder).dataset
    classifier = trained(folder, folder.best.exists() if best is None else best)
    example = np.zeros((1, dataset.channels, dataset.image_size, dataset.image_size), dtype=np.float32)
    return ExportedModel(Predictor(classifier, dataset).eval(), example, classifier.num_classes)


def log_models(folders: Sequence[RunFolder], config: RunConfig) -> int:
    """Log the models of finished runs to the tracker of `config`; return how many it lacked.

    Raises:
        UserError: some models could not be logged; the others are.
    """
    return tracker_of(config).log_models(folders, predictor)
