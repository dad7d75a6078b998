"""The precision that a run computes in: chosen by the device when the run begins, kept by whatever continues it."""

from __future__ import annotations

import logging

import torch

from headsweep.config import Precision, RunConfig
from headsweep.errors import ConfigError
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.device import computes_in
from headsweep.training.ranks import Ranks

PRECISION_LOGGER = "headsweep.precision"  # its warnings are printed by the launcher, too
LOGGER = logging.getLogger(PRECISION_LOGGER)


def begin(run: RunConfig, folder: RunFolder, device: torch.device, ranks: Ranks) -> Precision:
    """Return the precision to train in, and record it. All ranks call this, and use that of rank 0.

    Raises:
        ConfigError: as `precision_of`.
    """
    precision = ranks.gather(_recorded_or_chosen(run, folder, device))[0]
    _check(run, precision, device)
    if ranks.leads:
        _warn(run, precision, device)
        if folder.precision() != precision.value:
            folder.write_precision(precision.value)
    return precision


def precision_of(run: RunConfig, folder: RunFolder, device: torch.device) -> Precision:
    """Return the precision that a run computes in, or would if it began on `device`; nothing is written.

    Raises:
        ConfigError: the device does not support it.
    """
    precision = _recorded_or_chosen(run, folder, device)
    _check(run, precision, device)
    _warn(run, precision, device)
    return precision


def _recorded_or_chosen(run: RunConfig, folder: RunFolder, device: torch.device) -> Precision:
    """Return the recorded precision of a run that has weights; one without begins anew."""
    recorded = folder.precision() if folder.checkpoint.exists() else None
    is_kept = run.precision is Precision.auto and recorded is not None
    return Precision(recorded) if is_kept else run.precision.on(device.type)


def _check(run: RunConfig, precision: Precision, device: torch.device) -> None:
    if computes_in(precision, device):
        return
    began = f"{precision.value}, in which the run began"
    expected, fix = (
        (began, "resume it on such a device")
        if run.precision is Precision.auto
        else (precision.value, "give precision=float32")
    )
    raise ConfigError("precision", run.precision.value, f"expected a device with {expected}, found {device}; {fix}")


def _warn(run: RunConfig, precision: Precision, device: torch.device) -> None:
    """Log where the device would have chosen otherwise."""
    if (other := run.precision.on(device.type)) is not precision:
        LOGGER.warning(
            "precision=auto: keeps %s, in which the run began; on %s it would begin in %s",
            *(precision.value, device.type, other.value),
        )
