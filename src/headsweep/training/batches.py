"""The interfaces between training and data, so that neither imports the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class TrainingBatch(Protocol):
    """One optimizer step's images and target probabilities, on the device."""

    @property
    def images(self) -> Tensor:
        """(b, channels, height, width), normalised, or the tokens of a frozen backbone, (b, tokens, width)."""

    @property
    def targets(self) -> Tensor:
        """(b, classes), rows that sum to 1."""


class EvaluationBatch(Protocol):
    """Images and their labels, on the device."""

    @property
    def images(self) -> Tensor:
        """As in `TrainingBatch`."""

    @property
    def labels(self) -> Tensor:
        """(b), int64."""


class EvaluationBatches(Protocol):
    """The images of a split."""

    def __len__(self) -> int:
        """Batches."""

    def __iter__(self) -> Iterator[EvaluationBatch]:
        """All batches, from the first on."""


class TrainingBatches(Protocol):
    """The training images."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch, a function of its number, starting at batch `first`."""
