"""What is known of torchvision's classification data sets before they are loaded. Nothing here imports torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Arguments = Mapping[str, Any]  # of the class, that select a split


@dataclass(frozen=True)
class Facts:
    """A data set with one integer label an image."""

    classes: int
    place: str  # file or folder that torchvision reads, below the root
    images: Mapping[str, int]  # of each split; "all" where torchvision has no splits
    arguments: Mapping[str, Arguments] = field(default_factory=dict)  # by split; all others have none


def _by_train(classes: int, place: str, train: int, test: int, **more: Any) -> Facts:
    """Splits by `train=`, a boolean."""
    arguments = {"train": {"train": True, **more}, "test": {"train": False, **more}}
    return Facts(classes, place, {"train": train, "test": test}, arguments)


def _by_split(
    classes: int, place: str, images: tuple[int, ...], names: tuple[str, ...] = ("train", "test"), **more: Any
) -> Facts:
    """Splits by `split=`, a name; in the order train, validation (if there are three), test."""
    uses = ("train", "test") if len(names) == 2 else ("train", "validation", "test")
    arguments = {use: {"split": name, **more} for use, name in zip(uses, names, strict=True)}
    return Facts(classes, place, dict(zip(uses, images, strict=True)), arguments)


def _whole(classes: int, place: str, images: int) -> Facts:
    """No splits."""
    return Facts(classes, place, {"all": images})


_THREE = ("train", "val", "test")
FACTS: Mapping[str, Facts] = {
    "CIFAR10": _by_train(10, "cifar-10-batches-py", 50_000, 10_000),
    "CIFAR100": _by_train(100, "cifar-100-python", 50_000, 10_000),
    "Caltech101": _whole(101, "caltech101", 8_677),
    "Caltech256": _whole(257, "caltech256", 30_607),
    "Country211": _by_split(211, "country211", (31_650, 10_550, 21_100), ("train", "valid", "test")),
    "DTD": _by_split(47, "dtd", (1_880, 1_880, 1_880), _THREE),
    "EMNIST": _by_train(47, "EMNIST/raw", 112_800, 18_800, split="balanced"),
    "EuroSAT": _whole(10, "eurosat", 27_000),
    "FGVCAircraft": _by_split(100, "fgvc-aircraft-2013b", (3_334, 3_333, 3_333), _THREE),
    "FashionMNIST": _by_train(10, "FashionMNIST/raw", 60_000, 10_000),
    "Flowers102": _by_split(102, "flowers-102", (1_020, 1_020, 6_149), _THREE),
    "Food101": _by_split(101, "food-101", (75_750, 25_250)),
    "GTSRB": _by_split(43, "gtsrb", (26_640, 12_630)),
    "Imagenette": _by_split(10, "imagenette2", (9_469, 3_925), ("train", "val")),
    "KMNIST": _by_train(10, "KMNIST/raw", 60_000, 10_000),
    "MNIST": _by_train(10, "MNIST/raw", 60_000, 10_000),
    "OxfordIIITPet": _by_split(37, "oxford-iiit-pet", (3_680, 3_669), ("trainval", "test")),
    "Places365": _by_split(365, "data_256_standard", (1_803_460, 36_500), ("train-standard", "val"), small=True),
    "QMNIST": _by_train(10, "QMNIST/raw", 60_000, 60_000),
    "RenderedSST2": _by_split(2, "rendered-sst2", (6_920, 872, 1_821), _THREE),
    "SEMEION": _whole(10, "semeion.data", 1_593),
    "STL10": _by_split(10, "stl10_binary", (5_000, 8_000)),
    "SUN397": _whole(397, "SUN397", 108_754),
    "SVHN": _by_split(10, "train_32x32.mat", (73_257, 26_032)),
    "StanfordCars": _by_split(196, "stanford_cars", (8_144, 8_041)),
    "USPS": _by_train(10, "usps.bz2", 7_291, 2_007),
}
