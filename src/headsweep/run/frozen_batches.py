"""Batches of tokens, computed by a frozen backbone from batches of images."""

from __future__ import annotations

from collections.abc import Iterator

from headsweep.data.batches import TrainBatch
from headsweep.data.loader import EvalBatch, EvalLoader, TrainLoader
from headsweep.models.frozen import FrozenBackbone


class TokenTrainLoader:
    """The batches of a loader with tokens (b t d) in place of images."""

    def __init__(self, loader: TrainLoader, backbone: FrozenBackbone) -> None:
        self.loader, self.backbone, self.steps_per_epoch = loader, backbone, loader.steps_per_epoch

    def epoch(self, epoch: int, first: int = 0) -> Iterator[TrainBatch]:
        """See `TrainLoader.epoch`."""
        for batch in self.loader.epoch(epoch, first):
            yield batch._replace(images=self.backbone(batch.images))


class TokenEvalLoader:
    """The same for the batches of a split."""

    def __init__(self, loader: EvalLoader, backbone: FrozenBackbone) -> None:
        self.loader, self.backbone = loader, backbone

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[EvalBatch]:
        for batch in self.loader:
            yield batch._replace(images=self.backbone(batch.images))
