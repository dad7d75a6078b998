"""The data sets and their splits. Letters: n images, c channels."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headsweep import rng
from headsweep.config import DATASETS, AugmentationConfig, DatasetConfig, DebugConfig, LoaderConfig
from headsweep.data import locate
from headsweep.data.formats import FORMATS
from headsweep.data.formats.base import TEST, TRAIN, VALIDATION
from headsweep.data.formats.torchvision_sets import read_or_download
from headsweep.data.sources import ResidentSource, Source, StreamedSource, fit, stack
from headsweep.data.staging import stage
from headsweep.data.stored_image import StoredImage
from headsweep.data.views import ViewedSource
from headsweep.errors import DataError
from headsweep.loading import load_function
from headsweep.text import message_of

_TEST_SHARE = 0.2  # of a set without a test split
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
    loaded = load(dataset)
    splits = split(loaded, dataset, seed, debug)
    if _fits(splits, dataset, loader):
        return _each_resident(splits)
    staged = _staged(loaded, dataset, loader)
    return splits if staged is loaded else split(staged, dataset, seed, debug)


def open_views(
    dataset: DatasetConfig,
    augmentation: AugmentationConfig,
    views: int,
    seed: int,
    loader: LoaderConfig,
    debug: DebugConfig,
) -> Splits:
    """Load and split a data set as `open_splits`, with augmented views of the training images.

    These are not kept decoded: a crop is one of the image in its own size, as in stored views.
    """
    train, validation, test = _staged(load(dataset), dataset, loader)
    viewed = ViewedSource(train, dataset, augmentation, views)
    splits = split((viewed, validation, test), dataset, seed, debug)
    if isinstance(splits.validation, ViewedSource):  # drawn from the training images
        splits = splits._replace(validation=splits.validation.unchanged())
    return _each_resident(splits) if _fits(splits, dataset, loader) else splits


def load(dataset: DatasetConfig) -> Loaded:
    """Load a data set in its own splits. Raises DataError if files are absent or corrupted."""
    return load_function(f"dataset.name={dataset.name}", DATASETS[dataset.kind].load)(dataset)


def split(loaded: Loaded, dataset: DatasetConfig, seed: int, debug: DebugConfig) -> Splits:
    """Hold out images for validation, if the set has no such split, and shorten the splits for debugging.

    Raises:
        ConfigError: the validation share holds out no image.
    """
    train, validation, test = loaded
    if validation is None and dataset.validation > 0:
        held_out = stratified(train.labels, dataset.validation, rng.generator(seed, "validation split"))
        if not held_out.any():
            raise locate.no_validation_images(dataset, len(train))
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
    """Read scikit-learn's file directly: importing its loader takes seconds."""
    (place,) = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]
    rows = np.loadtxt(Path(place, "datasets", "data", "digits.csv.gz"), delimiter=",", dtype=np.int64)
    images = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    source = resident(images, torch.from_numpy(rows[:, -1].copy()), dataset)
    test = stratified(source.labels, _TEST_SHARE, rng.generator(0, "digits test split"))
    return source.subset((~test).nonzero()[:, 0]), None, source.subset(test.nonzero()[:, 0])


def load_cifar(dataset: DatasetConfig) -> Loaded:
    return _read_cifar(dataset, train=True), None, _read_cifar(dataset, train=False)


def _read_cifar(dataset: DatasetConfig, train: bool) -> ResidentSource:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if dataset.kind == "cifar10" else CIFAR100
    root = locate.root_of(dataset)
    try:
        loaded = read_or_download(kind, root, {"train": train}, dataset.download)
    except Exception as error:  # the loader raises many kinds
        if not (root / kind.base_folder).is_dir():
            raise DataError(
                f"{dataset.name} cannot be downloaded to {root}: {message_of(error)}; check the network, "
                f"or put the folder {kind.base_folder} there"
            ) from error
        raise DataError(
            f"{dataset.name} in {root / kind.base_folder} cannot be read: {message_of(error)}; delete that folder "
            "and give dataset.download=true, or put an intact copy there"
        ) from error
    return resident(loaded.data, torch.tensor(loaded.targets), dataset)


def resident(images: np.ndarray, labels: Tensor, dataset: DatasetConfig) -> ResidentSource:
    """Make a source from (n, h, w) or (n, h, w, 3) uint8 of the set's own size."""
    mode = "L" if dataset.channels == 1 else "RGB"
    fitted = (fit(Image.fromarray(image).convert(mode), dataset) for image in images)
    return ResidentSource(stack(fitted, len(images), dataset), labels.long())


def load_tree(dataset: DatasetConfig) -> Loaded:
    splits = {
        name: _streamed([image.path for image in images], torch.tensor([image.label for image in images]), dataset)
        for name, images in locate.planned_tree(dataset).splits.items()
    }
    return splits["train"], splits.get("validation"), splits["test"]


def load_format(dataset: DatasetConfig) -> Loaded:
    """Load a data set of a format; one without splits gives a fixed share to the test set."""
    locate.check_unchanged(dataset)
    assert dataset.format is not None
    found = FORMATS[dataset.format].read(locate.root_of(dataset), dataset)
    splits = {name: _streamed(it.images, _labels(it.labels, name, dataset), dataset) for name, it in found.items()}
    if "all" in splits:
        whole = splits["all"]
        test = stratified(whole.labels, _TEST_SHARE, rng.generator(0, f"{dataset.name} test split"))
        return whole.subset((~test).nonzero()[:, 0]), None, whole.subset(test.nonzero()[:, 0])
    return splits[TRAIN], splits.get(VALIDATION), splits[TEST]


def _labels(labels: Sequence[Any], split: str, dataset: DatasetConfig) -> Tensor:
    """Return the labels as (n,) int64. Raises DataError for labels that are not those of the classes."""
    try:
        found = torch.tensor([operator.index(label) for label in labels], dtype=torch.int64)
    except TypeError as error:
        raise DataError(
            f"{dataset.name}, split {split}: expected integers as labels, found {message_of(error)}; use a data set "
            "for classification"
        ) from error
    last = (dataset.num_classes or 0) - 1
    if not len(found) or found.min() < 0 or found.max() > last:
        span = f"{int(found.min())} to {int(found.max())}" if len(found) else "no image"
        raise DataError(f"{dataset.name}, split {split}: expected labels from 0 to {last}, found {span}")
    return found


def _streamed(images: Sequence[str | StoredImage], labels: Tensor, dataset: DatasetConfig) -> StreamedSource:
    # One image of each class in turn, so that a first part has all classes.
    order = _rank_in_class(labels).argsort(stable=True)
    return StreamedSource([images[row] for row in order.tolist()], labels[order], dataset)


def _first(source: Source, count: int | None) -> Source:
    return source if count is None else source.subset(torch.arange(min(count, len(source))))


def _fits(splits: Splits, dataset: DatasetConfig, loader: LoaderConfig) -> bool:
    """Return whether the decoded images of all splits are small enough to be kept."""
    pixels = dataset.image_size**2 * dataset.channels
    return sum(len(split) for split in splits if split is not None) * pixels <= loader.resident_gib * _GIB


def _each_resident(splits: Splits) -> Splits:
    return Splits._make(split.resident() if isinstance(split, StreamedSource) else split for split in splits)


def _staged(loaded: Loaded, dataset: DatasetConfig, loader: LoaderConfig) -> Loaded:
    """Return streamed images in a copy of them, if `loader` names a folder for it."""
    train, validation, test = loaded
    if loader.stage is None or not isinstance(train, StreamedSource):
        return loaded
    copy = replace(dataset, root=str(stage(dataset, loader.stage)))
    if dataset.format is not None:
        return load(copy)

    def moved(source: Source) -> Source:
        root = str(locate.root_of(dataset))
        return source.moved(root, str(copy.root)) if isinstance(source, StreamedSource) else source

    return moved(train), validation and moved(validation), moved(test)
