"""Checkpoints: the state from which a run resumes with the same bits.

No random state is in them: every draw is a function of seed and position (`headsweep.rng`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from headsweep.errors import UserError
from headsweep.text import typed_line
from headsweep.tracking import atomic_files
from headsweep.tracking.run_record import other_run
from headsweep.training.host_copy import HostCopy


@dataclass
class TrainingState:
    """The state that training changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None  # moving average of the weights
    step: int = 0  # optimizer steps done
    losses: list[Tensor] = field(default_factory=list)  # of the steps since the last logged epoch, on the device
    train_seconds: float = 0.0  # over all attempts, without evaluation
    fingerprint: str | None = None  # of the run; None: not checked

    @property
    def evaluated(self) -> nn.Module:
        """Return the weights that are evaluated: the average if there is one."""
        return self.model if self.average is None else self.average.module

    def snapshot(self) -> Snapshot:
        """Copy the state as it is now, without waiting for the device."""
        return Snapshot(
            HostCopy(
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "state_dict_ema": None if self.average is None else self.average.module.state_dict(),
                    "step": self.step,
                    "losses": torch.stack(self.losses) if self.losses else None,
                    "train_seconds": self.train_seconds,
                    "threads": torch.get_num_threads(),
                    "fingerprint": self.fingerprint,
                }
            )
        )

    def restore(self, path: Path, device: torch.device) -> None:
        """Restore the checkpoint at `path`, with the number of CPU threads that wrote it.

        Raises:
            UserError: the file is damaged or not of this run.
        """
        content = self._read(path, device, "start the run again from the beginning")
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(content["state_dict_ema"])
            self.step, self.train_seconds = content["step"], content["train_seconds"]
            self.losses = [] if content["losses"] is None else list(content["losses"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{path} is not a checkpoint of this run ({typed_line(error)}); remove it") from error
        # Sums are split over threads: their number changes the last bits.
        torch.set_num_threads(content["threads"])

    def restore_evaluated(self, path: Path, device: torch.device) -> int:
        """Load the weights at `path` into the evaluated model; return the epoch after which they were written.

        Raises:
            UserError: the file is damaged or not of this run.
        """
        content = self._read(path, device, "end the run without its best weights")
        self.evaluated.load_state_dict(content["state_dict"])
        return content["epoch"]

    def _read(self, path: Path, device: torch.device, then: str) -> dict[str, Any]:
        content = _read(path, device, then)
        # Runs of other seeds, and of other settings, have weights of the same shapes.
        if other := other_run(content, self.fingerprint):
            raise UserError(f"{path} {other}; remove it to {then}")
        return content


@dataclass(frozen=True)
class Snapshot:
    """The state at one moment, to be written while training goes on."""

    _copy: HostCopy

    def save(self, path: Path) -> None:
        """Replace the checkpoint at `path` atomically. Raises OSError if the disk is full; the old one then remains."""
        _write(path, self._copy.content())

    def save_evaluated(self, path: Path, epoch: int) -> None:
        """Write the evaluated weights and their epoch to `path`, as `save` does."""
        content = self._copy.content()
        weights = content["state_dict_ema"] or content["model"]
        _write(path, {"state_dict": weights, "epoch": epoch, "fingerprint": content["fingerprint"]})


def write_fitted(path: Path, model: nn.Module, fingerprint: str) -> None:
    """Write a fitted model where a trained one has its checkpoint. Raises OSError as `write_weights`."""
    _write(path, {"model": model.state_dict(), "state_dict_ema": None, "fingerprint": fingerprint})


def write_weights(path: Path, model: nn.Module, epoch: int, fingerprint: str) -> None:
    """Write weights and the epoch after which they are. Raises OSError if the disk is full; an old file remains."""
    _write(path, {"state_dict": model.state_dict(), "epoch": epoch, "fingerprint": fingerprint})


def _write(path: Path, content: dict[str, Any]) -> None:
    memory = io.BytesIO()  # for a full disk, torch's own error is only "unexpected pos"
    torch.save(content, memory)
    atomic_files.write_with(path, lambda file: file.write(memory.getbuffer()))


def _read(path: Path, device: torch.device, then: str) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError, PermissionError):
        raise  # the file may be intact
    except Exception as error:  # its text advises weights_only=False, which can execute code
        raise UserError(f"{path} is damaged: expected a file of torch.save; remove it to {then}") from error
