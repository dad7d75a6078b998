"""Models of runs as they were trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from headsweep.errors import UserError
from headsweep.models import Classifier, model_of
from headsweep.models.checkpoint_file import read_weights
from headsweep.plan.frozen import frozen
from headsweep.tracking.run_folder import RunFolder


def trained(folder: RunFolder, best: bool = False) -> Classifier:
    """The model of a run, on the CPU: with the weights of its last checkpoint, the averaged ones if it keeps them.

    Args:
        folder: of the run.
        best: take the weights of the epoch that was best on held-out images instead.

    Raises:
        UserError: it is no run's folder, or has no such weights, or damaged ones.
    """
    if not folder.config.exists():
        raise UserError(f"{folder.path} is no run's folder: it has no {folder.config.name}")
    if best and not folder.best.exists():
        raise UserError(
            f"{folder.path} has no best weights: no images were held out (dataset.validation=0), or an older headsweep "
            "trained it; want --weights last"
        )
    if not best and not folder.checkpoint.exists():
        raise UserError(f"{folder.path} has no {folder.checkpoint.name}: its run has one after its first epoch")
    run = frozen(folder)
    model = model_of(replace(run, model=replace(run.model, checkpoint=None)))
    path = folder.best if best else folder.checkpoint
    load_weights(model, weights_in(path), path)
    return model


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a model the weights of the file `path`. Raises UserError where they are those of another model."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected the weights of this model, found others ({reason[:200]})") from error


def weights_in(path: Path) -> dict[str, Tensor]:
    """The state dict in a file. Raises UserError as `read_weights` does, with the path."""
    try:
        return read_weights(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
