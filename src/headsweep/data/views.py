"""Augmented views of the training images of which tokens are stored.

Letters: b images of a batch, c channels, h w size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from headsweep import rng
from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig
from headsweep.data.augment import Augmenter, crop_at
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
