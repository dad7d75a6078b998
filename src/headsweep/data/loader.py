"""Batches as a function of (seed, epoch). Letters: b batch, c channels, h w size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from headsweep import rng
from headsweep.config import AugmentationConfig, DatasetConfig
from headsweep.data.augment import Normaliser
from headsweep.data.batches import TrainBatch, maker_for
from headsweep.data.mixing import Mix, Mixer
from headsweep.data.side_stream import SideStream
from headsweep.data.sources import Source
from headsweep.errors import ConfigError, DataError
from headsweep.text import plural


@dataclass(frozen=True)
class Share:
    """The part of each batch made by this process: piece `rank` of `count` of each of its `parts` (micro-batches)."""

    rank: int = 0
    count: int = 1
    parts: int = 1

    def places(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Return the indices of a batch to read, ascending, and which of them to keep after mixing.

        An image is mixed with the one before it, and the first with the last: those are read too.
        """
        mine = torch.arange(batch_size).view(self.parts, self.count, -1)[:, self.rank].flatten()
        read = torch.cat([mine, (mine - 1) % batch_size]).unique()
        return read, torch.isin(read, mine).nonzero()[:, 0]


class EvalBatch(NamedTuple):
    """An evaluation batch on the device."""

    images: Tensor  # (b c h w) float32, normalised, or tokens (b t d)
    labels: Tensor  # (b,) int64


class TrainLoader:
    """Training batches of any epoch, in any order of epochs.

    Args:
        source: the training split.
        dataset: resolved, so that num_classes is known.
        augmentation: what is done to the images.
        seed: of the run.
        batch_size: images per batch; the last, incomplete batch of an epoch is dropped.
        device: where batches are made.
        workers: decoding processes of a streamed source.
        share: of each batch; the parts and pieces of a batch are equally large.

    Raises:
        ConfigError: a batch is larger than the split.
    """

    def __init__(
        self,
        source: Source,
        dataset: DatasetConfig,
        augmentation: AugmentationConfig,
        seed: int,
        batch_size: int,
        device: torch.device,
        workers: int,
        share: Share = Share(),
    ) -> None:
        if batch_size > len(source):
            raise ConfigError(
                "batch_size", batch_size, f"expected at most {len(source)}, the number of training images"
            )
        self.seed, self.batch_size, self.size = seed, batch_size, dataset.image_size
        self.mixer = Mixer(augmentation)
        self.steps_per_epoch = len(source) // batch_size
        self.images, self.is_final = len(source), source.is_final
        self.places, kept = share.places(batch_size)
        self.maker = maker_for(source, dataset, augmentation, device, workers, len(self.places), kept)
        self.aside = SideStream(device)

    def __len__(self) -> int:
        return self.steps_per_epoch

    def epoch(self, epoch: int, first: int = 0) -> Iterator[TrainBatch]:
        """Yield the batches of one epoch, starting at batch `first`."""
        order = torch.randperm(self.images, generator=rng.generator(self.seed, "data order", epoch))
        batches = order[: self.steps_per_epoch * self.batch_size].view(-1, self.batch_size)[first:, self.places]
        key = epoch if self.is_final else rng.derive(self.seed, "augmentation", epoch)
        return self.aside(self.maker.make(key, batches, self._mixes(epoch, first))) if len(batches) else iter(())

    def _mixes(self, epoch: int, first: int) -> Iterator[Mix]:
        for step in range(first, self.steps_per_epoch):
            yield self.mixer.draw(self.size, self.size, rng.python_random(self.seed, "mixing", epoch, step))


class EvalLoader:
    """Batches of all images of a split in order, or of each `share.count`-th; the last batch may be smaller.

    Args:
        source: the split.
        dataset: for its mean and deviation.
        batch_size: images per batch, of all ranks together.
        device: where batches are made.
        workers: decoding processes of a streamed source.
        share: of the images.

    Raises:
        DataError: there are more ranks than images.
    """

    def __init__(
        self,
        source: Source,
        dataset: DatasetConfig,
        batch_size: int,
        device: torch.device,
        workers: int,
        share: Share = Share(),
    ) -> None:
        if len(source) < share.count:
            raise DataError(
                f"expected at most {plural(len(source), 'rank')}, one per image to evaluate, found {share.count}"
            )
        mine = torch.arange(share.rank, len(source), share.count)
        self.batches = mine.split(batch_size // share.count)
        self.labels = source.labels[mine].to(device).split(batch_size // share.count)
        self.reader = source.open(device, workers, crop=None)
        self.normalise = Normaliser(dataset, device)
        self.is_final = source.is_final

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[EvalBatch]:
        return self.starting_at(0)

    def starting_at(self, first: int) -> Iterator[EvalBatch]:
        """Yield the batches from number `first` on."""
        images = self.reader.read(0, self.batches[first:])
        for labels, batch in zip(self.labels[first:], images, strict=True):
            yield EvalBatch(batch if self.is_final else self.normalise(batch), labels)
