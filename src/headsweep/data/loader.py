"""Batches, as a function of (seed, epoch) alone. Letters: b batch, c channels, h w size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from headsweep import streams
from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig
from headsweep.data.augment import Augmenter, Normaliser, crop_at
from headsweep.data.mixing import Mixer, soft_targets
from headsweep.data.sources import Source, to_device
from headsweep.errors import ConfigError, DataError


@dataclass(frozen=True)
class Share:
    """What of each batch is made here: of each of its `parts` (micro-batches), piece number `rank` of `count`."""

    rank: int = 0
    count: int = 1
    parts: int = 1

    def places(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Places of a batch to read, ascending, and which of those to keep once they are mixed.

        An image is mixed with the one before it, and the first with the last: those are read too.
        """
        mine = torch.arange(batch_size).view(self.parts, self.count, -1)[:, self.rank].flatten()
        read = torch.cat([mine, (mine - 1) % batch_size]).unique()
        return read, torch.isin(read, mine).nonzero()[:, 0]


class TrainBatch(NamedTuple):
    """A training batch on the device, or this rank's share of one."""

    images: Tensor  # (b c h w) float32, normalised
    targets: Tensor  # (b num_classes) float32 probabilities, smoothed and mixed
    indices: Tensor  # (b,) int64, places in the training split


class EvalBatch(NamedTuple):
    """An evaluation batch on the device."""

    images: Tensor  # (b c h w) float32, normalised
    labels: Tensor  # (b,) int64


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch's host operations in one thread.

    A batch is some hundred small operations: a second thread gains little, and where other processes keep the
    cores busy the threads wait for each other (2 busy cores: 12,000 images/s with one thread, 300 to 2,000 with two).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
                "batch_size", batch_size, f"there are {len(source)} training images; want at most that many"
            )
        assert dataset.num_classes is not None, "locate.resolve fills num_classes in"
        self.seed, self.batch_size, self.device = seed, batch_size, device
        self.num_classes, self.smoothing = dataset.num_classes, augmentation.label_smoothing
        self.reader = source.open(device, workers, crop_at(augmentation, AugmentationOrder.crop_first))
        self.labels = source.labels.to(device)
        self.augment = Augmenter(augmentation, dataset, device)
        self.mix = Mixer(augmentation)
        self.steps_per_epoch = len(source) // batch_size
        self.places, kept = share.places(batch_size)
        self.kept = kept.to(device)

    def __len__(self) -> int:
        return self.steps_per_epoch

    def epoch(self, epoch: int, first: int = 0) -> Iterator[TrainBatch]:
        """The batches of one epoch, from its batch number `first` on."""
        order = torch.randperm(len(self.labels), generator=streams.generator(self.seed, "data order", epoch))
        batches = order[: self.steps_per_epoch * self.batch_size].view(-1, self.batch_size)[:, self.places]
        key = streams.derive(self.seed, "augmentation", epoch)
        images = self.reader.read(key, batches[first:].unbind())
        for step, indices in enumerate(batches[first:], first):
            with _one_thread():
                batch = self._finish(next(images), key, indices, epoch, step)
            yield batch

    def _finish(self, images: Tensor, key: int, indices: Tensor, epoch: int, step: int) -> TrainBatch:
        there = to_device(indices, self.device)
        images = self.augment(images, key, indices)
        targets = soft_targets(self.labels.index_select(0, there), self.num_classes, self.smoothing)
        images, targets = self.mix(images, targets, streams.python_random(self.seed, "mixing", epoch, step))
        return TrainBatch(*(values.index_select(0, self.kept) for values in (images, targets, there)))


class EvalLoader:
    """All images of a split, in order, or each `share.count`-th of them; the last batch may be smaller.

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
            raise DataError(f"{len(source)} images to evaluate for {share.count} ranks; want fewer ranks")
        mine = torch.arange(share.rank, len(source), share.count)
        self.batches = mine.split(batch_size // share.count)
        self.labels = source.labels[mine].to(device).split(batch_size // share.count)
        self.reader = source.open(device, workers, crop=None)
        self.normalise = Normaliser(dataset, device)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[EvalBatch]:
        images = self.reader.read(0, self.batches)
        for labels, batch in zip(self.labels, images, strict=True):
            yield EvalBatch(self.normalise(batch), labels)
