"""MedMNIST (https://medmnist.com): one .npz file with the images and labels of all splits."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsweep.config import DatasetConfig
from headsweep.data.formats.base import TEST, TRAIN, VALIDATION, Format, LabelledImages, Located, close_to, digest_of
from headsweep.data.stored_image import StoredImage
from headsweep.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_SPLITS = {TRAIN: "train", VALIDATION: "val", TEST: "test"}
_WANTED = {f"{split}_{what}.npy" for split in _SPLITS.values() for what in ("images", "labels")}


@dataclass(frozen=True)
class _Pixels(StoredImage):
    """One image of an array (n h w) or (n h w 3), uint8."""

    images: Any
    index: int
    path: Path

    def open(self) -> Image:
        from PIL import Image

        return Image.fromarray(self.images[self.index])

    def __str__(self) -> str:
        return f"image {self.index} of {self.path}"


class MedMnist(Format):
    """The file NAME.npz, e.g. pathmnist.npz or pathmnist_64.npz; identified by the checksums of its arrays."""

    def locate(self, root: Path, dataset: DatasetConfig) -> Located:
        path = _path(root, dataset)
        try:
            with zipfile.ZipFile(path) as archive:
                sums = {member.filename: member.CRC for member in archive.infolist()}
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}; download it again") from error
        if missing := sorted(_WANTED - sums.keys()):
            names = ", ".join(sorted(sums)) or "nothing"
            raise DataError(f"{path}: expected the arrays of MedMNIST, found {names}, without {', '.join(missing)}")
        labels = [_array(path, f"{split}_labels") for split in _SPLITS.values()]
        for of_split in labels:
            if of_split.ndim > 1 and of_split[0].size > 1:
                raise DataError(
                    f"{path}: expected one label for each image, found {of_split[0].size} (a multi-label data set); "
                    "use a set for classification into classes"
                )
        # The largest label of any split: labels are checked when the images are read.
        return max(int(of_split.max()) for of_split in labels) + 1, digest_of(sums)

    def splits(self, root: Path, dataset: DatasetConfig) -> Mapping[str, int]:
        path = _path(root, dataset)
        return {use: len(_array(path, f"{split}_labels")) for use, split in _SPLITS.items()}

    def read(self, root: Path, dataset: DatasetConfig) -> Mapping[str, LabelledImages]:
        path = _path(root, dataset)
        found = {}
        for use, split in _SPLITS.items():
            images, labels = _array(path, f"{split}_images"), _array(path, f"{split}_labels").reshape(-1)
            is_flat = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
            if not is_flat or images.dtype != "uint8" or len(images) != len(labels):
                raise DataError(
                    f"{path}: expected {split}_images as (n, h, w) or (n, h, w, 3) of uint8, one for each of "
                    f"{len(labels)} labels, found {images.shape} of {images.dtype}; 3D sets cannot be used"
                )
            found[use] = LabelledImages([_Pixels(images, at, path) for at in range(len(images))], labels.tolist())
        return found

    def files(self, root: Path, dataset: DatasetConfig) -> dict[str, int]:
        return {}  # all images are read at the start


def _path(root: Path, dataset: DatasetConfig) -> Path:
    path = root / f"{dataset.name}.npz"
    if not path.is_file():
        others = [it.stem for it in sorted(root.glob("*.npz"))]
        raise DataError(
            f"{dataset.name}: no {path}{close_to(dataset.name, others)}; download {path.name} of MedMNIST and put it "
            "there, or point dataset.root at the folder that holds it"
        )
    return path


def _array(path: Path, name: str) -> Any:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as content:
            array = content[name]
    except Exception as error:  # damaged archives raise many kinds
        raise DataError(f"{path}: {name} cannot be read: {error}; download it again") from error
    if not len(array):
        raise DataError(f"{path}: {name} is empty; download it again")
    return array
