"""The model of a run from raw pixels to logits, as it is logged to MLflow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headsweep.config import DatasetConfig
from headsweep.credentials import hidden
from headsweep.data.augment import Normaliser
from headsweep.errors import UserError
from headsweep.models import Classifier
from headsweep.plan.frozen import frozen
from headsweep.run.load_model import trained
from headsweep.tracking.mlflow.model import Built, log_model
from headsweep.tracking.mlflow.store import reason
from headsweep.tracking.run_folder import RunFolder


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


def predictor(folder: RunFolder) -> Built:
    """Return the model to log, with the best weights, or the last ones without validation images."""
    dataset = frozen(folder).dataset
    classifier = trained(folder, best=folder.best.exists())
    example = np.zeros((1, dataset.channels, dataset.image_size, dataset.image_size), dtype=np.float32)
    return Built(Predictor(classifier, dataset).eval(), example, classifier.num_classes)


def log_models(folders: Sequence[RunFolder], uri: str) -> int:
    """Log the models of `folders` to the MLflow store at `uri`; return how many were new.

    Raises:
        UserError: some models could not be logged; the others are.
    """
    logged, failed = 0, []
    for folder in folders:
        try:
            logged += log_model(folder, uri, predictor)
        except Exception as error:  # any error of a store
            failed.append(f"{folder.record().name}: {reason(error, uri)}")
    if failed:
        raise UserError(
            f"MLflow at {hidden(uri)} took {logged} of {len(folders)} models ({failed[0]}); the weights are safe in "
            "the runs' folders, and `headsweep sync` sends the others"
        )
    return logged
