"""Locate and identify the data of a run by listing folders, so that checking a plan is fast.

Nothing here imports torch, torchvision or numpy.
"""

from __future__ import annotations

import filecmp
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

from headsweep.config import DATASETS, DatasetConfig
from headsweep.data.formats import FORMATS
from headsweep.data.formats.base import TEST, TRAIN, VALIDATION, Located, digest_of
from headsweep.data.listing import Tree, read_tree
from headsweep.errors import ConfigError, DataError
from headsweep.loading import load_function
from headsweep.text import escaped, plural

LOGGER = logging.getLogger("headsweep")

CIFAR_FILES = {
    "cifar10": (
        "cifar-10-batches-py",
        ("batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    ),
    "cifar100": ("cifar-100-python", ("meta", "train", "test")),
}
_CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
_DIGITS_CLASSES = 10


@contextmanager
def _reading() -> Iterator[None]:
    """Convert OSError to DataError, e.g. for a folder without read permission."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}; repair or remove it") from error


@_reading()
def resolve(dataset: DatasetConfig) -> DatasetConfig:
    """Check that the data exists and fill in the keys that it determines.

    Returns:
        A copy of `dataset` with `num_classes` (counted where it was None) and `digest`.

    Raises:
        DataError: the data is absent, or its folders do not make a data set.
        ConfigError: a key contradicts the data.
    """
    if dataset.channels not in (1, 3):
        raise ConfigError("dataset.channels", dataset.channels, "expected 1 (grey) or 3 (RGB)")
    located: Located = load_function(f"dataset.name={dataset.name}", DATASETS[dataset.kind].locate)(dataset)
    num_classes, content = located
    if dataset.num_classes not in (None, num_classes):
        expected = f"expected {num_classes}, the number of classes of {dataset.name}, or null to count them"
        raise ConfigError("dataset.num_classes", dataset.num_classes, expected)
    return replace(dataset, num_classes=num_classes, digest=content)


def root_of(dataset: DatasetConfig) -> Path:
    """Return the folder that holds the data. Raises ConfigError if none is given."""
    if dataset.root is None:
        raise ConfigError("dataset.root", None, f"expected the folder of {dataset.name}: dataset.root=PATH")
    return Path(dataset.root)


def split_folders(dataset: DatasetConfig) -> dict[str, Path]:
    """Return the folders of an image tree by use: train, test, and validation if the set has one."""
    root = root_of(dataset)
    if dataset.kind == "imagenet" or not _is_folder(root / "test"):
        return {TRAIN: root / "train", TEST: root / "val"}
    folders = {TRAIN: root / "train", TEST: root / "test"}
    return {**folders, VALIDATION: root / "val"} if _is_folder(root / "val") else folders


def _is_folder(path: Path) -> bool:
    """Raises DataError on a link that leads nowhere: the split is not absent, its disk is."""
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path} is a link to {path.readlink()}, which does not exist; mend or remove the link")
    return path.is_dir()


def has_validation(dataset: DatasetConfig) -> bool:
    """Return whether images are held out of training, by the set itself or by `validation`."""
    if dataset.validation > 0 or DATASETS[dataset.kind].has_validation:
        return True
    if dataset.format is not None:
        return VALIDATION in FORMATS[dataset.format].splits(root_of(dataset), dataset)
    return dataset.kind == "imagefolder" and VALIDATION in split_folders(dataset)


def count_images(dataset: DatasetConfig) -> int:
    """Return the number of images in all splits of a resolved data set. Raises DataError as `planned_tree`."""
    if dataset.format is not None:
        return sum(FORMATS[dataset.format].splits(root_of(dataset), dataset).values())
    known = DATASETS[dataset.kind].images
    return sum(map(len, planned_tree(dataset).splits.values())) if known is None else known


@_reading()
def planned_tree(dataset: DatasetConfig) -> Tree:
    """List the images of an image tree whose run has been planned.

    Raises:
        DataError: the images are not those of the plan, or are no data set (see `read_tree`).
    """
    tree = read_tree(split_folders(dataset))
    if len(tree.classes) != dataset.num_classes:
        raise _changed(dataset)
    if dataset.digest is not None:
        image_sizes(dataset, tree)
    return tree


def image_sizes(dataset: DatasetConfig, tree: Tree) -> dict[str, int]:
    """Look up the bytes of every image by its name below the root.

    Raises:
        DataError: an image is empty, or the images are not those that `dataset.digest` stands for.
    """
    skip = len(str(root_of(dataset))) + 1
    paths = [image.path for images in tree.splits.values() for image in images]
    sizes = {path[skip:]: os.stat(path).st_size for path in paths}  # noqa: PTH116 - a million Paths are slow
    if empty := [name for name, size in sizes.items() if size == 0]:
        more = f", the first of {len(empty)} such images" * (len(empty) > 1)
        raise DataError(f"{root_of(dataset) / empty[0]} is empty (0 bytes){more}; restore or remove it")
    if dataset.digest not in (None, digest_of(sizes)):
        raise _changed(dataset)
    return sizes


def _note_copies(dataset: DatasetConfig, sizes: dict[str, int]) -> None:
    """Log how many images of one split are also in another, in the same class and under the same name.

    Copies under other names are not detected: that would read every image.
    """
    splits: dict[str, dict[tuple[str, int], str]] = {}  # split -> name in it and bytes -> name
    for name, size in sizes.items():
        split, _, rest = name.partition("/")
        splits.setdefault(split, {})[rest, size] = name
    root = root_of(dataset)
    copies = [
        (first[key], second[key])
        for first, second in combinations(splits.values(), 2)
        for key in first.keys() & second.keys()
        if filecmp.cmp(root / first[key], root / second[key], shallow=False)
    ]
    if copies:
        one, other = min(copies)
        _note(
            escaped(
                f"{root}: {plural(len(copies), 'image')} in two splits, e.g. {one} and {other} (the same bytes): "
                "accuracy on training images is too high; remove the copies from one of the two"
            )
        )


def _note_unread(dataset: DatasetConfig, classes: list[str]) -> None:
    """Log which folders beside the splits have class folders as well, such as a validation split of another name."""
    read = {folder.name for folder in split_folders(dataset).values()}
    unread = [
        f"{folder.name}/"
        for folder in sorted(root_of(dataset).iterdir())
        if folder.name not in read and not folder.name.startswith(".") and _has_any(folder, classes)
    ]
    if unread:
        expected = "expected validation images in val/ and test images in test/"
        _note(escaped(f"{dataset.root}: class folders in {', '.join(unread)} are not read; {expected}"))


def _has_any(folder: Path, classes: list[str]) -> bool:
    """Return whether a folder has one of the class folders; a folder that may not be read has none, e.g. lost+found."""
    try:
        return folder.is_dir() and any((folder / name).is_dir() for name in classes)
    except OSError:
        return False


def _changed(dataset: DatasetConfig) -> DataError:
    return DataError(f"{dataset.root} has changed since the run was planned; give the command again to plan new runs")


def locate_digits(dataset: DatasetConfig) -> Located:
    return _DIGITS_CLASSES, None


def locate_cifar(dataset: DatasetConfig) -> Located:
    folder_name, names = CIFAR_FILES[dataset.name]
    folder = root_of(dataset) / folder_name
    absent = [name for name in names if not (folder / name).is_file()]
    if absent and not dataset.download:
        what = f"no {folder}" if not folder.is_dir() else f"{folder} lacks {', '.join(absent)}"
        raise DataError(
            f"{dataset.name}: {what}; give dataset.download=true, or put the folder {folder_name} "
            "there, or point dataset.root at the folder that holds it"
        )
    return _CIFAR_CLASSES[dataset.name], None


def locate_imagenet(dataset: DatasetConfig) -> Located:
    root = root_of(dataset)
    for split in ("train", "val"):
        if not _is_folder(root / split):
            raise DataError(
                f"imagenet: no {root / split}; get ILSVRC2012 from https://image-net.org, unpack it as "
                f"{root}/{{train,val}}/<class>/*, or point dataset.root at the folder that holds train and val"
            )
    return len(_read_tree(dataset).classes), None


def locate_folder(dataset: DatasetConfig) -> Located:
    root = root_of(dataset)
    if not _is_folder(root / "train"):
        raise DataError(f"imagefolder: no {root / 'train'}; expected {root}/{{train,val,test}}/<class>/<image>")
    if not any(_is_folder(root / split) for split in ("val", "test")):
        raise DataError(
            f"imagefolder: {root} has no test images: expected test/ or val/, with the class folders of train/"
        )
    tree = _read_tree(dataset)
    sizes = image_sizes(replace(dataset, digest=None), tree)
    _note_copies(dataset, sizes)
    _note_unread(dataset, tree.classes)
    return len(tree.classes), digest_of(sizes)


def most_training_images(dataset: DatasetConfig) -> int | None:
    """Return how many images are left for training at most; None if the data is not listed to find out.

    Args:
        dataset: the last that `resolve` returned for its root, whose listing is used again: it can take seconds.

    Raises:
        ConfigError: the validation share holds out no image.
    """
    sizes = None if dataset.root is None else _class_sizes.get(dataset.root)
    if sizes is None or dataset.kind not in ("imagefolder", "imagenet"):
        return None
    images = sum(sizes)
    if dataset.validation == 0 or VALIDATION in split_folders(dataset):
        return images
    if not (held_out := round(images * dataset.validation)):
        raise no_validation_images(dataset, images)
    # A class keeps one image: below a half, only those of a single image can hold out fewer than their share.
    return images - held_out + sizes.count(1) if dataset.validation < 0.5 else images


def no_validation_images(dataset: DatasetConfig, images: int) -> ConfigError:
    """Return the error for a validation share of so many training images that holds out none."""
    expected = f"expected a larger share, or 0: it holds out none of {plural(images, 'training image')}"
    return ConfigError("dataset.validation", dataset.validation, expected)


_class_sizes: dict[str, list[int]] = {}  # root of a listed tree -> training images of each class


def _read_tree(dataset: DatasetConfig) -> Tree:
    tree = read_tree(split_folders(dataset))
    counts = Counter(image.label for image in tree.splits[TRAIN])
    _class_sizes[str(dataset.root)] = list(counts.values())
    if skipped := ", ".join(f"{kind}: {count}" for kind, count in sorted(tree.skipped.items()) if count):
        _note(escaped(f"{dataset.root}: left out {skipped}"))
    return tree


@cache
def _note(line: str) -> None:
    """Log a line once per process, for all cells that use the data set."""
    LOGGER.warning(line)


def locate_format(dataset: DatasetConfig) -> Located:
    assert dataset.format is not None
    found, root = FORMATS[dataset.format], root_of(dataset)
    classes, content = found.locate(root, dataset)
    counts = found.splits(root, dataset) if content else {}  # those of published sets are known
    for split in (it for it in (TRAIN, VALIDATION, TEST) if counts.get(it) == 0):
        raise DataError(f"{dataset.name} in {root} has no image for {split}; expected at least one")
    if classes < 2:
        raise DataError(f"{dataset.name} in {root} has one class; expected at least 2")
    return classes, content


def check_unchanged(dataset: DatasetConfig) -> None:
    """Raise DataError if the files of a format are not those that `dataset.digest` stands for."""
    if dataset.format is not None and dataset.digest is not None:
        located = FORMATS[dataset.format].locate(root_of(dataset), dataset)
        if located != (dataset.num_classes, dataset.digest):
            raise _changed(dataset)
