"""Sources of images: resident on the device, or streamed from files. Letters: b batch, n images, c channels.

A source is opened once for a device and then read in each epoch. Both kinds of reader return the same uint8 images,
byte for byte, if the files have the model's image size.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from headsweep import sockets
from headsweep.config import DatasetConfig
from headsweep.data.crop import Crop, CropTable, resample
from headsweep.data.decoding import decode
from headsweep.data.stored_image import StoredImage
from headsweep.errors import DataError
from headsweep.processes import end_with_parent, signals_blocked
from headsweep.text import last_line

Request = tuple[int, list[int]]  # the key of the crop's random stream, and the indices of images


class Reader(Protocol):
    """An opened source."""

    def read(self, key: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each batch, randomly cropped with stream `key` if the reader was opened with a crop.

        Args:
            key: of the augmentation stream of the epoch; ignored without a crop.
            batches: (b,) int64 indices each, on the host.

        Yields:
            (b, c, size, size) uint8 on the device.
        """
        ...


class Source(ABC):
    """A split of a data set.

    Attributes:
        labels: (n,) int64 on the host.
        is_final: whether readers yield what a model reads, in place of images to augment and normalise; the key of an
            epoch is then its number.
    """

    labels: Tensor
    is_final: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def subset(self, rows: Tensor) -> Source:
        """Return the images at `rows`, in that order."""

    @abstractmethod
    def open(self, device: torch.device, workers: int, crop: Crop | None) -> Reader:
        """Open the source for `device`; with `crop`, images are random resized crops."""


class ResidentSource(Source):
    """Decoded images, (n, c, size, size) uint8."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def subset(self, rows: Tensor) -> ResidentSource:
        return ResidentSource(self.images[rows], self.labels[rows])

    def open(self, device: torch.device, workers: int, crop: Crop | None) -> ResidentReader:
        return ResidentReader(self.images.to(device), crop)


class ResidentReader:
    """Reads by indexing; crops on the device."""

    def __init__(self, images: Tensor, crop: Crop | None) -> None:
        self.images, self.crop = images, crop
        self.table = CropTable(images.shape[-1], images.device) if crop else None

    def read(self, key: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        side = self.images.shape[-1]
        for indices in batches:
            images = self.images.index_select(0, to_device(indices, self.images.device))
            if self.crop and self.table:
                sides = torch.full_like(indices, side)
                boxes = self.crop.boxes(key, indices, sides, sides)
                images = resample(images, to_device(boxes, images.device), self.table)
            yield images


class StreamedSource(Source):
    """Image files or stored images, decoded on demand."""

    def __init__(
        self, paths: Sequence[str | PathLike[str] | StoredImage], labels: Tensor, dataset: DatasetConfig
    ) -> None:
        self.paths, self.labels, self.dataset = paths, labels, dataset

    def subset(self, rows: Tensor) -> StreamedSource:
        return StreamedSource([self.paths[row] for row in rows.tolist()], self.labels[rows], self.dataset)

    def moved(self, root: str, to: str) -> StreamedSource:
        """Return the same images in a copy of their tree; all are files."""
        paths = [path for path in self.paths if not isinstance(path, StoredImage)]
        return StreamedSource([f"{to}{os.fspath(path)[len(root) :]}" for path in paths], self.labels, self.dataset)

    def open(self, device: torch.device, workers: int, crop: Crop | None) -> StreamedReader:
        """Open without starting workers, which the first epoch does."""
        return StreamedReader(self, device, workers, crop)

    def resident(self) -> ResidentSource:
        """Decode all images. Threads suffice, as Pillow releases the GIL."""
        dataset = self.dataset
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            fitted = pool.map(lambda path: fit(decode(path, dataset.channels), dataset), self.paths)
            return ResidentSource(stack(fitted, len(self), dataset), self.labels)


class StreamedReader:
    """Reads through worker processes, started once and kept as long as the reader."""

    def __init__(self, source: StreamedSource, device: torch.device, workers: int, crop: Crop | None) -> None:
        self.device = device
        self.requests = _Requests()
        # DataLoader runs a worker with one torch thread; `generator` is given because DataLoader
        # would otherwise draw a seed from torch's global generator, which belongs to training.
        self.loader: DataLoader[Tensor] = DataLoader(
            _Decoder(source, crop),
            sampler=self.requests,
            batch_size=None,
            num_workers=workers,
            # The default in a run of the local launcher is a forkserver, whose workers would import torch again.
            multiprocessing_context="fork" if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),
            worker_init_fn=lambda number: end_with_parent(),
        )

    def read(self, key: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `Reader.read`. Raises DataError that names a file that cannot be decoded."""
        self.requests.pending = [(key, indices.tolist()) for indices in batches]
        try:
            sockets.folder()
            with signals_blocked():  # the workers, which the first epoch starts
                decoded = iter(self.loader)
            for images in decoded:
                yield images.to(self.device, non_blocking=True)
        except DataError as error:
            if self.loader.num_workers == 0:
                raise
            # A worker's error has its traceback in the message; the last line is the original message.
            message = last_line(error.args[0])
            raise DataError(message.removeprefix("headsweep.errors.DataError: ")) from error


class _Requests(Sampler[Request]):
    """The batches of the next epoch, read each time the loader is iterated."""

    def __init__(self) -> None:
        self.pending: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.pending)

    def __len__(self) -> int:
        return len(self.pending)


class _Decoder(Dataset[Tensor]):
    """Decodes whole batches in a worker, from file names to uint8."""

    def __init__(self, source: StreamedSource, crop: Crop | None) -> None:
        self.source, self.crop = source, crop

    def __getitem__(self, request: Request) -> Tensor:
        key, indices = request
        dataset = self.source.dataset
        images = [decode(self.source.paths[index], dataset.channels) for index in indices]
        if self.crop is None:
            return stack((fit(image, dataset) for image in images), len(images), dataset)
        widths, heights = torch.tensor([image.size for image in images]).unbind(1)
        boxes = self.crop.boxes(key, torch.tensor(indices), heights, widths).tolist()
        crops = (crop_image(image, box, dataset.image_size) for image, box in zip(images, boxes, strict=True))
        return stack(crops, len(images), dataset)


def fit(image: Image.Image, dataset: DatasetConfig) -> Image.Image:
    """Resize the shorter side to image_size / crop_ratio (bicubic), then cut the centre."""
    size = dataset.image_size
    shorter = int(size / dataset.crop_ratio)
    width, height = image.size
    # The longer side is rounded down, as in torchvision's Resize.
    tall = width <= height
    target = (shorter, shorter * height // width) if tall else (shorter * width // height, shorter)
    if target != image.size:
        image = image.resize(target, Image.Resampling.BICUBIC)
    left, top = round((target[0] - size) / 2), round((target[1] - size) / 2)
    return image.crop((left, top, left + size, top + size))


def crop_image(image: Image.Image, box: Sequence[int], size: int) -> Image.Image:
    """Crop (top, left, height, width) of an image and resize it to `size`."""
    top, left, height, width = box
    part = image.crop((left, top, left + width, top + height))
    return part.resize((size, size), Image.Resampling.BICUBIC)


def stack(images: Iterable[Image.Image], count: int, dataset: DatasetConfig) -> Tensor:
    """Stack `count` images of the model's size to one (n, c, size, size) uint8 tensor."""
    pixels = np.empty((count, dataset.image_size, dataset.image_size, dataset.channels), np.uint8)
    for row, image in enumerate(images):
        pixels[row] = np.asarray(image).reshape(pixels.shape[1:])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without a device sync, which a copy from pageable memory would need."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
