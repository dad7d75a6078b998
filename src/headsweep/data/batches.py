"""Make the batches of an epoch: read and augment them in groups, or as one recorded sequence of operations.

Both give the same bytes. A batch is made of the images at its indices in a split, of which the `kept` ones are
returned after mixing. Letters: m batches, b images of a batch that are read, c channels, s side, k classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig
from headsweep.data.augment import Augmenter, crop_at
from headsweep.data.cuda_graph import Recorded
from headsweep.data.mixing import Mix, mix, mix_static, soft_targets
from headsweep.data.sources import ResidentSource, Source, to_device
from headsweep.data.static_shapes import Layers, StaticAugmenter

# Pixels augmented at once, 4 batches of 256 images of side 32: they need no more operations, some hundred small ones,
# than one batch. With static shapes this takes about 0.2 GB for RGB.
PIXELS_AT_ONCE = 2**20


class TrainBatch(NamedTuple):
    """A training batch on the device, or this rank's share of one."""

    images: Tensor  # (b c h w) float32, normalised, or tokens (b t d)
    targets: Tensor  # (b num_classes) float32 probabilities, smoothed and mixed
    indices: Tensor  # (b,) int64, indices into the training split


class Maker(Protocol):
    """Makes training batches on a device."""

    def make(self, key: int, batches: Tensor, mixes: Iterable[Mix]) -> Iterator[TrainBatch]:
        """Yield the batches of an epoch, or the rest of it.

        Args:
            key: of the epoch's augmentation stream; for a final source the epoch.
            batches: (m b) int64 places in the split, on the host.
            mixes: for each batch.
        """
        ...


def maker_for(
    source: Source,
    dataset: DatasetConfig,
    augmentation: AugmentationConfig,
    device: torch.device,
    workers: int,
    images: int,
    kept: Tensor,
) -> Maker:
    """Return the faster maker of batches for `source` and `device`; a batch reads `images` and returns `kept`."""
    if source.is_final:
        return FinalMaker(source, dataset, augmentation.label_smoothing, device, workers, kept)
    at_once = PIXELS_AT_ONCE // (images * dataset.image_size**2) if isinstance(source, ResidentSource) else 0
    if isinstance(source, ResidentSource) and device.type == "cuda" and at_once:
        return RecordedMaker(source, dataset, augmentation, device, kept, at_once)
    return GroupedMaker(source, dataset, augmentation, device, workers, kept, max(at_once, 1))


class Targets:
    """Smoothed one-hot targets of the images of a split."""

    def __init__(self, source: Source, dataset: DatasetConfig, smoothing: float, device: torch.device) -> None:
        assert dataset.num_classes is not None, "locate.resolve fills num_classes in"
        self.labels, self.num_classes, self.smoothing = source.labels.to(device), dataset.num_classes, smoothing

    def __call__(self, there: Tensor) -> Tensor:
        """(b,) int64 on the device to (b k) float32."""
        return soft_targets(self.labels.index_select(0, there), self.num_classes, self.smoothing)


class FinalMaker:
    """Makes batches of what needs no augmentation: stored tokens, or views."""

    def __init__(
        self,
        source: Source,
        dataset: DatasetConfig,
        smoothing: float,
        device: torch.device,
        workers: int,
        kept: Tensor,
    ) -> None:
        self.device, self.kept, self.reader = device, kept, source.open(device, workers, None)
        self.targets = Targets(source, dataset, smoothing, device)

    def make(self, key: int, batches: Tensor, mixes: Iterable[Mix]) -> Iterator[TrainBatch]:
        """See `Maker.make`."""
        own = batches[:, self.kept]
        for places, read in zip(own, self.reader.read(key, list(own)), strict=True):
            there = to_device(places, self.device)
            yield TrainBatch(read, self.targets(there), there)


class GroupedMaker:
    """Makes batches of any source: images are grouped by the operations that they drew."""

    def __init__(
        self,
        source: Source,
        dataset: DatasetConfig,
        augmentation: AugmentationConfig,
        device: torch.device,
        workers: int,
        kept: Tensor,
        at_once: int = 1,
    ) -> None:
        """Make `at_once` batches at a time, with `workers` decoding processes if the source is streamed."""
        self.at_once, self.device, self.kept = at_once, device, kept.to(device)
        self.reader = source.open(device, workers, crop_at(augmentation, AugmentationOrder.crop_first))
        self.augment = Augmenter(augmentation, dataset, device)
        self.targets = Targets(source, dataset, augmentation.label_smoothing, device)

    def make(self, key: int, batches: Tensor, mixes: Iterable[Mix]) -> Iterator[TrainBatch]:
        """See `Maker.make`."""
        parts, drawn = batches.split(self.at_once), iter(mixes)
        images = self.reader.read(key, [some.flatten() for some in parts])
        for some in parts:
            with _one_thread():
                draws = self.augment.draw(key, some.flatten())
                changed = self.augment(next(images), draws).unflatten(0, some.shape)
                holes = to_device(draws.holes, self.device).unflatten(0, some.shape)
            for places, its, its_holes in zip(some, changed, holes, strict=True):
                with _one_thread():
                    there = to_device(places, self.device)
                    normal = self.augment.normalised(its, its_holes)
                    mixed = mix(normal, self.targets(there), next(drawn))
                    batch = [values.index_select(0, self.kept) for values in (*mixed, there)]
                yield TrainBatch(*batch)


class RecordedMaker:
    """Makes batches of small resident images: all pass the same operations, which a GPU replays as one graph."""

    def __init__(
        self,
        source: ResidentSource,
        dataset: DatasetConfig,
        augmentation: AugmentationConfig,
        device: torch.device,
        kept: Tensor,
        at_once: int,
    ) -> None:
        """Make `at_once` batches at a time."""
        self.at_once, self.device, self.kept, self.images = at_once, device, kept.to(device), source.images.to(device)
        self.augment = StaticAugmenter(augmentation, dataset, device)
        self.targets = Targets(source, dataset, augmentation.label_smoothing, device)
        self.recorded = Recorded(self._made)

    def make(self, key: int, batches: Tensor, mixes: Iterable[Mix]) -> Iterator[TrainBatch]:
        """See `Maker.make`."""
        drawn = iter(mixes)
        for some in batches.split(self.at_once):
            with _one_thread():
                mixed = torch.stack([its.numbers() for its in islice(drawn, len(some))])
                places, mixed = self._filled(some), self._filled(mixed)
                numbers, layers = self.augment.numbers(key, places.flatten())
                made = self.recorded(*(to_device(its, self.device) for its in (places, mixed, numbers, *layers)))
            for batch in islice(zip(*made, strict=True), len(some)):
                yield TrainBatch(*batch)

    def _filled(self, values: Tensor) -> Tensor:
        """Pad to the usual number of batches: repeat the last one of an epoch; the repetitions are discarded."""
        return torch.cat((values, values[-1:].expand(self.at_once - len(values), *values.shape[1:])))

    def _made(self, there: Tensor, mixes: Tensor, numbers: Tensor, *layers: Tensor) -> tuple[Tensor, ...]:
        """Indices (m b), mixes (m 8) and the draws and layers of m b images to the fields of m batches."""
        flat = there.flatten()
        images = self.augment(self.images.index_select(0, flat), numbers, Layers(*layers)).unflatten(0, there.shape)
        mixed = mix_static(images, self.targets(flat).unflatten(0, there.shape), mixes)
        return tuple(values.index_select(1, self.kept) for values in (*mixed, there))


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
