"""The classification data sets of torchvision, by the name of their class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from headsweep.config import DatasetConfig
from headsweep.data.formats.base import Format, LabelledImages, Located, close_to
from headsweep.data.formats.torchvision_facts import FACTS, Facts
from headsweep.data.stored_image import StoredImage
from headsweep.errors import ConfigError, DataError
from headsweep.text import message_of

if TYPE_CHECKING:
    from PIL.Image import Image

# Attributes in which torchvision's classes hold all labels, or all pairs of file and label.
_LABELS, _PAIRS = ("targets", "labels", "_labels", "y"), ("_samples", "samples")


@dataclass(frozen=True)
class _Item(StoredImage):
    """One image of a torchvision data set."""

    data: Any
    index: int

    def open(self) -> Image:
        image: Image = self.data[self.index][0]
        return image

    def __str__(self) -> str:
        return f"image {self.index} of {type(self.data).__name__} in {self.data.root}"


class TorchvisionSets(Format):
    """Published data sets, whose content torchvision verifies when it downloads them: they have no digest."""

    def locate(self, root: Path, dataset: DatasetConfig) -> Located:
        facts = _facts(dataset)
        if not (root / facts.place).exists() and not dataset.download:
            raise DataError(
                f"{dataset.name}: no {root / facts.place}; give dataset.download=true, or put {facts.place} there as "
                "torchvision unpacks it, or point dataset.root at the folder that holds it"
            )
        return facts.classes, None

    def splits(self, root: Path, dataset: DatasetConfig) -> Mapping[str, int]:
        return _facts(dataset).images

    def read(self, root: Path, dataset: DatasetConfig) -> Mapping[str, LabelledImages]:
        facts = _facts(dataset)
        found = {}
        for split in facts.images:
            data = _loaded(root, dataset, facts, split)
            found[split] = LabelledImages([_Item(data, at) for at in range(len(data))], _labels(data))
        return found

    def files(self, root: Path, dataset: DatasetConfig) -> dict[str, int]:
        place, skip = root / _facts(dataset).place, len(str(root)) + 1
        if not place.is_dir():  # small files beside others
            return {}
        below = (os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names)  # noqa: PTH118
        return {path[skip:]: os.stat(path).st_size for path in below}  # noqa: PTH116 - a million Paths are slow


def _facts(dataset: DatasetConfig) -> Facts:
    if dataset.name in FACTS:
        return FACTS[dataset.name]
    known = ", ".join(FACTS)
    raise ConfigError(
        "dataset.name",
        dataset.name,
        f"expected a classification data set of torchvision{close_to(dataset.name, FACTS)}; known: {known}",
    )


def _loaded(root: Path, dataset: DatasetConfig, facts: Facts, split: str) -> Any:
    from torchvision import datasets

    kind, arguments = getattr(datasets, dataset.name), facts.arguments.get(split, {})
    try:
        return read_or_download(kind, root, arguments, dataset.download)
    except Exception as error:  # the classes raise many kinds
        reason = message_of(error)
        if not (root / facts.place).exists():
            raise DataError(
                f"{dataset.name} cannot be downloaded to {root}: {reason}; check the network, or put {facts.place} "
                "there as torchvision unpacks it"
            ) from error
        raise DataError(
            f"{dataset.name} in {root / facts.place} cannot be read: {reason}; remove that and give "
            "dataset.download=true, or put an intact copy there"
        ) from error


def read_or_download(kind: Any, root: Path, arguments: Mapping[str, Any], download: bool) -> Any:
    """Return a data set of torchvision; it is downloaded only if it cannot be read without."""
    try:
        return kind(root, **arguments, download=False)
    except RuntimeError:
        if not download:
            raise
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):  # runs of a sweep start at the same time
        return kind(root, **arguments, download=True)


def _labels(data: Any) -> Sequence[Any]:
    """Return the labels, if possible without decoding all images."""
    for name in _LABELS:
        if (labels := getattr(data, name, None)) is not None and len(labels) == len(data):
            return list(labels)
    for name in _PAIRS:
        if (pairs := getattr(data, name, None)) is not None and len(pairs) == len(data):
            return [label for _, label in pairs]
    return [data[at][1] for at in range(len(data))]
