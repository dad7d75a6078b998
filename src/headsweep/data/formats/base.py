"""What every format of data sets provides. Nothing here imports torch, torchvision or numpy."""

from __future__ import annotations

import difflib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headsweep.config import DatasetConfig
from headsweep.data.stored_image import StoredImage
from headsweep.errors import DataError

Located = tuple[int, str | None]  # number of classes, and value of `DatasetConfig.digest`
TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = {  # names that files and folders have for a split
    "train": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}


class LabelledImages(NamedTuple):
    """The images of a split."""

    images: Sequence[StoredImage]
    labels: Sequence[Any]  # checked by who asked for them


class Format(ABC):
    """A kind of files from which any data set can be read by its name.

    Splits are called train, test and, if the set has one, validation. All methods raise DataError for files that are
    missing or not as expected.
    """

    @abstractmethod
    def locate(self, root: Path, dataset: DatasetConfig) -> Located:
        """Return number of classes and digest, fast and without torch."""

    @abstractmethod
    def splits(self, root: Path, dataset: DatasetConfig) -> Mapping[str, int]:
        """Return the number of images of each split, without torch."""

    @abstractmethod
    def read(self, root: Path, dataset: DatasetConfig) -> Mapping[str, LabelledImages]:
        """Return the images of each split, which are decoded later."""

    @abstractmethod
    def files(self, root: Path, dataset: DatasetConfig) -> dict[str, int]:
        """Return the bytes of each file below the root that is read; none where all is read at the start."""


def close_to(word: str, known: Iterable[str]) -> str:
    """Return a hint at known words that are similar, e.g. "; close to it: DTD"; "" if there are none."""
    by_lower = {it.lower(): it for it in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=3)
    return f"; close to it: {', '.join(by_lower[it] for it in found)}" if found else ""


def sizes_below(root: Path, names: Iterable[str]) -> dict[str, int]:
    """Return the bytes of files by their names below the root."""
    return {name: (root / name).stat().st_size for name in names}


def digest_of(facts: Mapping[str, int]) -> str:
    """Return a hash of names with a number each, e.g. sizes of files, so that a changed file makes a new run."""
    lines = sorted(f"{name}\0{number}\n" for name, number in facts.items())
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]  # names can be any bytes


def checked_splits(where: Path, found: dict[str, list[Path]], hint: str) -> dict[str, list[Path]]:
    """Return the files by split; where there is no split for testing, that for validation takes its place.

    Raises:
        DataError: there are no images for training or testing.
    """
    if TEST not in found and VALIDATION in found:
        found = {split: files for split, files in found.items() if split != VALIDATION} | {TEST: found[VALIDATION]}
    for split in (TRAIN, TEST):
        if split not in found:
            names = ", ".join(found) or "none"
            raise DataError(f"{where}: expected a split for {split}, found splits: {names}; {hint}")
    return found
