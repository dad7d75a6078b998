"""Shards of webdataset: tar files in which the members 0007.jpg and 0007.cls are an image and its label.

Members are found by their offsets, so that images are read in any order. timm's reader is a stream, which skips what it
cannot decode; this one refuses it by name.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from headsweep.config import DatasetConfig
from headsweep.data.formats.base import (
    SPLITS,
    Format,
    LabelledImages,
    Located,
    checked_splits,
    close_to,
    digest_of,
    sizes_below,
)
from headsweep.data.stored_image import StoredImage
from headsweep.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])")
_IMAGES = ("jpg", "jpeg", "png", "webp")
_BLOCK = 512  # bytes; an archive ends with two of zeros
_LAYOUT = "name the shards train-*.tar and test-*.tar, or list them in _info.json as timm does"


class _Part(NamedTuple):
    """Some bytes of a shard."""

    shard: str
    offset: int
    size: int

    def read(self) -> bytes:
        with Path(self.shard).open("rb") as file:
            return self.read_from(file)

    def read_from(self, file: BinaryIO) -> bytes:
        """Read from the opened shard."""
        file.seek(self.offset)
        return file.read(self.size)


@dataclass(frozen=True)
class _Member(StoredImage):
    """An image in a shard."""

    part: _Part
    name: str

    def open(self) -> Image:
        import io

        from PIL import Image

        return Image.open(io.BytesIO(self.part.read()))

    def __str__(self) -> str:
        return f"{self.name} in {self.part.shard}"


class WebDataset(Format):
    """The folder NAME with its shards, identified by their names and sizes."""

    def locate(self, root: Path, dataset: DatasetConfig) -> Located:
        shards = _shards(root, dataset)
        digest = digest_of(self.files(root, dataset))
        if dataset.num_classes is not None:  # checked when the images are read
            return dataset.num_classes, digest
        labels = [label for paths in shards.values() for label in _of(paths, dataset).labels]
        return max(labels, default=0) + 1, digest

    def splits(self, root: Path, dataset: DatasetConfig) -> Mapping[str, int]:
        return {split: len(_of(paths, dataset).labels) for split, paths in _shards(root, dataset).items()}

    def read(self, root: Path, dataset: DatasetConfig) -> Mapping[str, LabelledImages]:
        return {split: _of(paths, dataset) for split, paths in _shards(root, dataset).items()}

    def files(self, root: Path, dataset: DatasetConfig) -> dict[str, int]:
        paths = [path for of_split in _shards(root, dataset).values() for path in of_split]
        infos = [path for name in _INFOS if (path := root / dataset.name / name).is_file()]
        return sizes_below(root, (str(path.relative_to(root)) for path in (*infos, *paths)))


_INFOS = ("_info.json", "info.json")


def _shards(root: Path, dataset: DatasetConfig) -> dict[str, list[Path]]:
    """Return the shards by split; where there is none for testing, those for validation take its place."""
    folder = root / dataset.name
    if not folder.is_dir():
        others = [it.name for it in sorted(root.glob("*/"))] if root.is_dir() else []
        raise DataError(
            f"{dataset.name}: no {folder}{close_to(dataset.name, others)}; put the shards (.tar) there, or point "
            "dataset.root at the folder that holds it"
        )
    found = checked_splits(folder, _listed(folder) or _by_name(folder), _LAYOUT)
    if missing := [path for paths in found.values() for path in paths if not path.is_file()]:
        raise DataError(f"{folder}: no {missing[0].name}, which its list of shards names; restore the shard")
    return found


def _listed(folder: Path) -> dict[str, list[Path]]:
    """Return the shards that timm's file lists, if there is one."""
    path = next((folder / name for name in _INFOS if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
        return {SPLITS[it]: [folder / name for name in splits[it]["filenames"]] for it in splits if it in SPLITS}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: expected splits with filenames, found something else; {_LAYOUT}") from error


def _by_name(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.tar")):
        if split := _SPLIT.search(path.stem.lower()) or _SPLIT.search(path.parent.name.lower()):
            found.setdefault(SPLITS[split[1]], []).append(path)
    return found


def _of(paths: list[Path], dataset: DatasetConfig) -> LabelledImages:
    """Return the images of some shards, in their order."""
    images: list[StoredImage] = []
    labels: list[int] = []
    for path in paths:
        state = path.stat()
        of_shard = _read_shard(str(path), state.st_size, state.st_mtime_ns, dataset.label)
        images += of_shard.images
        labels += of_shard.labels
    return LabelledImages(images, labels)


@lru_cache(maxsize=4096)  # a plan asks for all its cells
def _read_shard(shard: str, size: int, changed: int, label: str | None) -> LabelledImages:
    """Read the headers and labels of a shard; `size` and `changed` are those of the file."""
    samples: dict[str, dict[str, _Part]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    part = _Part(shard, member.offset_data, member.size)
                    if part.offset + part.size > size:
                        raise tarfile.ReadError(f"{member.name} is cut off")
                    samples.setdefault(f"{folder}/{stem}".lstrip("/"), {})[ending.lower()] = part
        if any(_Part(shard, size - _BLOCK, _BLOCK).read()):  # tarfile takes what is left for a whole archive
            raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard} cannot be read: {error}; restore it (shards are not compressed)") from error
    if not samples:
        raise DataError(f"{shard} has no files; restore or remove it")
    images = [_image(shard, key, parts) for key, parts in samples.items()]
    with Path(shard).open("rb") as file:
        return LabelledImages(images, [_label(file, key, parts, label) for key, parts in samples.items()])


def _image(shard: str, key: str, parts: Mapping[str, _Part]) -> _Member:
    ending = next((it for it in _IMAGES if it in parts), None)
    if ending is None:
        raise DataError(f"{shard}: {key} has no image ({', '.join(_IMAGES)}), only {', '.join(parts)}; remove it")
    return _Member(parts[ending], f"{key}.{ending}")


def _label(shard: BinaryIO, key: str, parts: Mapping[str, _Part], label: str | None) -> int:
    ending = "cls" if label is None else "json"
    if ending not in parts:
        fix = "give dataset.label=KEY of the JSON files, or add it" if "json" in parts else "add it"
        raise DataError(f"{shard.name}: {key} has no label ({key}.{ending}); {fix}")
    text = parts[ending].read_from(shard)
    try:
        value: Any = int(text) if label is None else json.loads(text)[label]
    except (ValueError, KeyError, TypeError):
        value = text[:40].decode(errors="replace")
    if not isinstance(value, int):
        where = "an integer" if label is None else f"an integer at {label!r}"
        raise DataError(f"{shard.name}: {key}.{ending}: expected {where}, found {value!r}; restore it")
    return value
