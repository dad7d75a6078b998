"""Augmented views of the training images, of which tokens are stored or computed in each step.

Letters: n images of a split, b images of a batch, c channels, h w size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from headsweep import rng
from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig
from headsweep.data.augment import Augmenter, crop_at
from headsweep.data.crop import Crop
from headsweep.data.sources import Source, to_device

_SEED = 0  # of the views, which runs of all seeds share


class Views:
    """Reads views of the images of a split: what is drawn depends on the view and the image's place alone.

    Args:
        source: all training images.
        dataset: for size, mean and deviation.
        augmentation: without mixing, which joins images.
        device: where images are augmented.
        workers: decoding processes of a streamed source.
    """

    def __init__(
        self,
        source: Source,
        dataset: DatasetConfig,
        augmentation: AugmentationConfig,
        device: torch.device,
        workers: int,
    ) -> None:
        self._reader = source.open(device, workers, crop_at(augmentation, AugmentationOrder.crop_first))
        self._augment, self._device = Augmenter(augmentation, dataset, device), device

    def read(self, view: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images (b c h w) at each of `batches`, float32 and normalised."""
        key = rng.derive(_SEED, "stored views", view)
        for places, images in zip(batches, self._reader.read(key, batches), strict=True):
            draws = self._augment.draw(key, places)
            yield self._augment.normalised(self._augment(images, draws), to_device(draws.holes, self._device))


class ViewedSource(Source):
    """Training images as augmented views, another one in each epoch; each view is made again when its turn comes."""

    is_final = True

    def __init__(
        self,
        images: Source,
        dataset: DatasetConfig,
        augmentation: AugmentationConfig,
        views: int,
        rows: Tensor | None = None,
    ) -> None:
        """`images` are all training images, `rows` (n,) the places of this split among them; None: all."""
        self._images, self._dataset, self._augmentation, self._views = images, dataset, augmentation, views
        self._rows = torch.arange(len(images)) if rows is None else rows
        self.labels = images.labels[self._rows]

    def subset(self, rows: Tensor) -> ViewedSource:
        return ViewedSource(self._images, self._dataset, self._augmentation, self._views, self._rows[rows])

    def unchanged(self) -> Source:
        """Return the images as they are."""
        return self._images.subset(self._rows)

    def open(self, device: torch.device, workers: int, crop: Crop | None) -> ViewedReader:
        views = Views(self._images, self._dataset, self._augmentation, device, workers)
        return ViewedReader(views, self._views, self._rows)


class ViewedReader:
    """Reads the view whose turn it is."""

    def __init__(self, views: Views, count: int, rows: Tensor) -> None:
        self._read, self._count, self._rows = views.read, count, rows

    def read(self, key: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield images as `Views.read`; `key` is the epoch."""
        return self._read(key % self._count, [self._rows[indices] for indices in batches])
