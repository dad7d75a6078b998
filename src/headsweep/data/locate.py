"""Is the data there, and which data is it? Answered from folder listings alone, so that a plan is checked fast.

Nothing here imports torch, torchvision or numpy (law 10).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from headsweep.config import DatasetConfig, DatasetName
from headsweep.errors import ConfigError, DataError

# The endings that torchvision's ImageFolder loads.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

CIFAR_FILES = {
    DatasetName.cifar10: (
        "cifar-10-batches-py",
        ("batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    ),
    DatasetName.cifar100: ("cifar-100-python", ("meta", "train", "test")),
}
_CIFAR_CLASSES = {DatasetName.cifar10: 10, DatasetName.cifar100: 100}
_DIGITS_CLASSES = 10


def resolve(dataset: DatasetConfig) -> DatasetConfig:
    """Check that the data is there and fill in what only the data can say.

    Returns:
        A copy of `dataset` with `num_classes` (counted where it was None) and, for an image folder, `digest`.

    Raises:
        DataError: the data is absent, or its folders do not make a data set.
        ConfigError: a key contradicts the data.
    """
    if dataset.channels not in (1, 3):
        raise ConfigError("dataset.channels", dataset.channels, "want 1 (grey) or 3 (RGB)")
    content = None
    if dataset.name is DatasetName.digits:
        num_classes = _DIGITS_CLASSES
    elif dataset.name in CIFAR_FILES:
        num_classes = _locate_cifar(dataset)
    elif dataset.name is DatasetName.imagenet:
        num_classes = _locate_imagenet(dataset)
    else:
        num_classes, content = _locate_folder(dataset)
    if dataset.num_classes not in (None, num_classes):
        want = f"{dataset.name.value} has {num_classes} classes; want {num_classes}, or null to count them"
        raise ConfigError("dataset.num_classes", dataset.num_classes, want)
    return replace(dataset, num_classes=num_classes, digest=content)


def root_of(dataset: DatasetConfig) -> Path:
    """The folder that holds the data; raises ConfigError when none is given."""
    if dataset.root is None:
        raise ConfigError("dataset.root", None, f"{dataset.name.value} needs a folder: dataset.root=PATH")
    return Path(dataset.root)


def split_folders(dataset: DatasetConfig) -> dict[str, Path]:
    """The folders of an image tree by their use: train, test, and validation where the set has its own."""
    root = root_of(dataset)
    if dataset.name is DatasetName.imagenet or not (root / "test").is_dir():
        return {"train": root / "train", "test": root / "val"}
    folders = {"train": root / "train", "test": root / "test"}
    return {**folders, "validation": root / "val"} if (root / "val").is_dir() else folders


def has_validation(dataset: DatasetConfig) -> bool:
    """Are images held out of training, by the set itself or by `validation`?"""
    is_folder = dataset.name is DatasetName.imagefolder
    return dataset.validation > 0 or (is_folder and "validation" in split_folders(dataset))


def class_names(folder: Path) -> list[str]:
    """The class folders of a split, sorted, which is the order of the labels."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def image_files(folder: Path) -> Iterator[Path]:
    """Every image below `folder`, sorted within each folder."""
    for parent, names in _listing(folder):
        yield from (Path(parent, name) for name in names)


def _listing(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `folder` down, and the names of the images in it; both sorted."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield parent, sorted(name for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def image_sizes(dataset: DatasetConfig) -> dict[str, int]:
    """The bytes of every image of an image tree, by its name below the root; of what is there, were it nothing."""
    root = str(root_of(dataset))
    # Texts, not paths: a million of them are made into one digest.
    return {
        f"{parent}/{name}"[len(root) + 1 :]: os.stat(f"{parent}/{name}").st_size  # noqa: PTH116
        for folder in split_folders(dataset).values()
        for parent, names in _listing(folder)
        for name in names
    }


def digest(sizes: dict[str, int]) -> str:
    """A hash of the names and sizes of images, so that a changed folder makes a new run."""
    lines = sorted(f"{name}\0{size}\n" for name, size in sizes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _locate_cifar(dataset: DatasetConfig) -> int:
    folder_name, names = CIFAR_FILES[dataset.name]
    folder = root_of(dataset) / folder_name
    absent = [name for name in names if not (folder / name).is_file()]
    if absent and not dataset.download:
        what = f"no {folder}" if not folder.is_dir() else f"{folder} lacks {', '.join(absent)}"
        raise DataError(
            f"{dataset.name.value}: {what}; give dataset.download=true, or put the folder {folder_name} "
            "there, or point dataset.root at the folder that holds it"
        )
    return _CIFAR_CLASSES[dataset.name]


def _locate_imagenet(dataset: DatasetConfig) -> int:
    root = root_of(dataset)
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise DataError(
                f"imagenet: no {root / split}; get ILSVRC2012 from https://image-net.org, unpack it as "
                f"{root}/{{train,val}}/<class>/*, or point dataset.root at the folder that holds train and val"
            )
    return _count_classes(split_folders(dataset))


def _locate_folder(dataset: DatasetConfig) -> tuple[int, str]:
    root = root_of(dataset)
    if not (root / "train").is_dir():
        raise DataError(f"imagefolder: no {root / 'train'}; want {root}/{{train,val,test}}/<class>/<image>")
    if not any((root / split).is_dir() for split in ("val", "test")):
        raise DataError(
            f"imagefolder: {root} has no test images: neither test/ nor val/; want at least one of them, "
            "with the class folders of train/"
        )
    folders = split_folders(dataset)
    return _count_classes(folders), digest(image_sizes(dataset))


def _count_classes(folders: dict[str, Path]) -> int:
    """The number of classes, after checking that the splits agree and that no class is empty."""
    names = class_names(folders["train"])
    if len(names) < 2:
        raise DataError(f"{folders['train']} has {len(names)} class folders; want at least 2")
    for folder in folders.values():
        _same_classes(names, folder, folders["train"])
        for name in names:
            if next(image_files(folder / name), None) is None:
                raise DataError(f"{folder / name} holds no image (known endings: {' '.join(IMAGE_SUFFIXES)})")
    return len(names)


def _same_classes(names: list[str], folder: Path, train: Path) -> None:
    found = class_names(folder)
    if differing := sorted(set(names) ^ set(found)):
        side = "lacks" if differing[0] in names else "alone has"
        raise DataError(
            f"{folder} has {len(found)} class folders, {train} has {len(names)}; {folder.name}/ {side} "
            f"{differing[0]!r}; want the same classes in both"
        )
