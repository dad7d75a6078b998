"""Load the model of a run with its trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from headsweep.errors import UserError
from headsweep.models import Classifier, model_of
from headsweep.models.checkpoints.checkpoint_file import read_weights
from headsweep.models.frozen import Probe
from headsweep.plan.frozen import frozen
from headsweep.text import message_of
from headsweep.tracking.run_folder import RunFolder


def trained(folder: RunFolder, best: bool = False) -> Classifier:
    """Return the model of a run on the CPU, with the weights of its last checkpoint (their moving average, if any).

    Args:
        folder: of the run.
        best: use the weights of the best epoch on validation images instead.

    Raises:
        UserError: it is not the folder of a run, or its weights, or its frozen backbone's, are missing, damaged or of
            another run.
    """
    if not folder.config.exists():
        raise UserError(f"{folder.path}: expected the folder of a run, found no {folder.config.name} there")
    if folder.result() and not folder.checkpoint.exists():
        raise UserError(
            f"{folder.path}: expected {folder.checkpoint.name} of a finished run, found none; "
            "`headsweep bundle --weights` includes it, `headsweep reproduce` trains the run again"
        )
    if best and not folder.best.exists():
        raise UserError(
            f"{folder.path}: expected best weights, found none: there were no validation images "
            "(dataset.validation=0), or an older headsweep trained it; use --weights last"
        )
    if not best and not folder.checkpoint.exists():
        raise UserError(
            f"{folder.path}: expected {folder.checkpoint.name}, found none; the run writes it after its first epoch"
        )
    run, fingerprint = frozen(folder), folder.record().fingerprint
    path = folder.best if best else folder.checkpoint
    if run.backbone.is_frozen:  # its weights are where they were when the run was trained
        model = model_of(run)
        load_weights(Probe(model), weights_in(path, fingerprint), path)
        return model
    model = model_of(run, initial=True)
    load_weights(model, weights_in(path, fingerprint), path)
    return model


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights of the file `path` into a model. Raises UserError if they do not fit."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = message_of(error)
        raise UserError(f"{path}: expected the weights of this model, found others ({reason[:200]})") from error


def weights_in(path: Path, fingerprint: str | None = None) -> dict[str, Tensor]:
    """Return the state dict in a file. Raises UserError as `read_weights`, with the path."""
    try:
        return read_weights(path, fingerprint=fingerprint)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
