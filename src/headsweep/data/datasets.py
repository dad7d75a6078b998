"""The data sets and their splits. Letters: n images, c channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from headsweep import rng
from headsweep.config import DATASETS, DatasetConfig, DebugConfig, LoaderConfig
from headsweep.data import locate
from headsweep.data.listing import ImageFile
from headsweep.data.sources import ResidentSource, Source, StreamedSource, fit, stack
from headsweep.data.staging import stage
from headsweep.errors import ConfigError, DataError
from headsweep.loading import load_function

_DIGITS_TEST_SHARE = 0.2
_GIB = 2**30

Loaded = tuple[Source, Source | None, Source]  # train, the set's own validation split, test


class Splits(NamedTuple):
    """The splits of a data set."""

    train: Source
    validation: Source | None  # None: no images are held out, and the set has no such split
    test: Source


def open_splits(dataset: DatasetConfig, seed: int, loader: LoaderConfig, debug: DebugConfig) -> Splits:
    """Load a data set and split it.

    Args:
        dataset: what `locate.resolve` returned.
        seed: draws the validation split if the set has none; the test split never depends on it.
        loader: up to which size a set is kept decoded, and where a larger one is copied to.
        debug: may keep only the first images of each split.

    Raises:
        DataError: files are absent or corrupted.
        ConfigError: the validation share holds out no image, or the copy does not fit on its disk.
    """
    return _near(split(load(dataset), dataset, seed, debug), dataset, loader)


def load(dataset: DatasetConfig) -> Loaded:
    """Load a data set in its own splits. Raises DataError if files are absent or corrupted."""
    return load_function(f"dataset.name={dataset.name}", DATASETS[dataset.name].load)(dataset)


def split(loaded: Loaded, dataset: DatasetConfig, seed: int, debug: DebugConfig) -> Splits:
    """Hold out images for validation, if the set has no such split, and shorten the splits for debugging.

    Raises:
        ConfigError: the validation share holds out no image.
    """
    train, validation, test = loaded
    if validation is None and dataset.validation > 0:
        held_out = stratified(train.labels, dataset.validation, rng.generator(seed, "validation split"))
        if not held_out.any():
            expected = f"expected a larger share, or 0: it holds out none of {len(train)} training images"
            raise ConfigError("dataset.validation", dataset.validation, expected)
        validation, train = train.subset(held_out.nonzero()[:, 0]), train.subset((~held_out).nonzero()[:, 0])
    return Splits(
        _first(train, debug.train_images),
        validation and _first(validation, debug.eval_images),
        _first(test, debug.eval_images),
    )


def stratified(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Choose round(share * n) images, the same share of every class up to rounding.

    Returns:
        (n,) bool. A class always keeps one image that is not chosen.
    """
    sizes = labels.bincount()
    ideal = sizes * share
    quota = ideal.floor().long()
    missing = round(len(labels) * share) - int(quota.sum())
    quota[(ideal - quota).argsort(descending=True, stable=True)[:missing]] += 1
    quota = quota.minimum((sizes - 1).clamp(min=0))
    shuffled = torch.randperm(len(labels), generator=generator)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[shuffled] = _rank_in_class(labels[shuffled]) < quota[labels[shuffled]]
    return chosen


def _rank_in_class(labels: Tensor) -> Tensor:
    """Count the images of the same class before each image."""
    order = labels.argsort(stable=True)
    before = labels.bincount().cumsum(0) - labels.bincount()
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - before[labels[order]]
    return ranks


def load_digits(dataset: DatasetConfig) -> Loaded:
    from sklearn import datasets

    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    source = resident(images, torch.from_numpy(digits.target), dataset)
    test = stratified(source.labels, _DIGITS_TEST_SHARE, rng.generator(0, "digits test split"))
    return source.subset((~test).nonzero()[:, 0]), None, source.subset(test.nonzero()[:, 0])


def load_cifar(dataset: DatasetConfig) -> Loaded:
    return _read_cifar(dataset, train=True), None, _read_cifar(dataset, train=False)


def _read_cifar(dataset: DatasetConfig, train: bool) -> ResidentSource:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if dataset.name == "cifar10" else CIFAR100
    root = locate.root_of(dataset)
    try:
        loaded = _read_or_download(kind, root, train, dataset.download)
    except Exception as error:  # the loader raises many kinds
        if not (root / kind.base_folder).is_dir():
            raise DataError(
                f"{dataset.name} cannot be downloaded to {root}: {_one_line(error)}; check the network, "
                f"or put the folder {kind.base_folder} there"
            ) from error
        raise DataError(
            f"{dataset.name} in {root / kind.base_folder} cannot be read: {_one_line(error)}; delete that folder "
            "and give dataset.download=true, or put an intact copy there"
        ) from error
    return resident(loaded.data, torch.tensor(loaded.targets), dataset)


def _read_or_download(kind: type, root: Path, train: bool, download: bool) -> Any:
    try:
        return kind(root, train=train)
    except RuntimeError:
        if not download:
            raise
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):  # runs of a sweep start at the same time
        return kind(root, train=train, download=True)


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())


def resident(images: np.ndarray, labels: Tensor, dataset: DatasetConfig) -> ResidentSource:
    """Make a source from (n, h, w) or (n, h, w, 3) uint8 of the set's own size."""
    mode = "L" if dataset.channels == 1 else "RGB"
    fitted = (fit(Image.fromarray(image).convert(mode), dataset) for image in images)
    return ResidentSource(stack(fitted, len(images), dataset), labels.long())


def load_tree(dataset: DatasetConfig) -> Loaded:
    splits = {name: _files(images, dataset) for name, images in locate.planned_tree(dataset).splits.items()}
    return splits["train"], splits.get("validation"), splits["test"]


def _files(images: Sequence[ImageFile], dataset: DatasetConfig) -> StreamedSource:
    labels = torch.tensor([image.label for image in images])
    # One image of each class in turn, so that a first part has all classes.
    order = _rank_in_class(labels).argsort(stable=True)
    return StreamedSource([images[row].path for row in order.tolist()], labels[order], dataset)


def _first(source: Source, count: int | None) -> Source:
    return source if count is None else source.subset(torch.arange(min(count, len(source))))


def _near(splits: Splits, dataset: DatasetConfig, loader: LoaderConfig) -> Splits:
    """Decode streamed splits now if they fit into `loader.resident_gib`; else stage them if `loader.stage` is given."""
    pixels = dataset.image_size**2 * dataset.channels
    if sum(len(split) for split in splits if split is not None) * pixels <= loader.resident_gib * _GIB:
        return _each_streamed(splits, StreamedSource.resident)
    if loader.stage is None or not isinstance(splits.train, StreamedSource):
        return splits
    root, copy = str(locate.root_of(dataset)), str(stage(dataset, loader.stage))
    return _each_streamed(splits, lambda source: source.moved(root, copy))


def _each_streamed(splits: Splits, change: Callable[[StreamedSource], Source]) -> Splits:
    return Splits._make(change(split) if isinstance(split, StreamedSource) else split for split in splits)
