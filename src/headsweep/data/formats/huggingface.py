"""A data set of Hugging Face in a folder: as `save_to_disk` writes it, or the Parquet files of a repository.

The folder is read as it is; nothing is downloaded. Planning reads column names, labels and numbers of rows with
pyarrow; `datasets` is imported to read images.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsweep.config import DatasetConfig
from headsweep.data.formats.base import (
    SPLITS,
    TRAIN,
    Format,
    LabelledImages,
    Located,
    checked_splits,
    close_to,
    digest_of,
    sizes_below,
)
from headsweep.data.stored_image import StoredImage
from headsweep.errors import ConfigError, DataError
from headsweep.text import message_of

if TYPE_CHECKING:
    from PIL.Image import Image

_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?![a-z])")
_LAYOUT = "expected a folder of save_to_disk, or files like train-00000-of-00001.parquet, test-00000-of-00001.parquet"


@dataclass(frozen=True)
class _Row(StoredImage):
    """One row of a data set whose images are not decoded."""

    rows: Any  # datasets.Dataset
    column: str
    index: int
    folder: Path

    def open(self) -> Image:
        import io

        from PIL import Image

        value = self.rows[self.index][self.column]
        return Image.open(io.BytesIO(value["bytes"]) if value["bytes"] else value["path"])

    def __str__(self) -> str:
        return f"row {self.index} of {self.folder}"


@dataclass(frozen=True)
class _Folder:
    """The files of a data set by split, and their schema."""

    path: Path

    @property
    def is_saved(self) -> bool:
        """Whether `save_to_disk` has written it."""
        return (self.path / "dataset_dict.json").is_file()

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """Files by split, in order; where there is no split for testing, that for validation takes its place."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.path.rglob("*.arrow" if self.is_saved else "*.parquet")):
            names = (path.parent.name,) if self.is_saved else (path.name, path.parent.name)
            if split := next(filter(None, map(_SPLIT.match, names)), None):
                found.setdefault(SPLITS[split[1]], []).append(path)
        return checked_splits(self.path, found, _LAYOUT)

    def features(self) -> dict[str, Any]:
        """Return the description of each column."""
        first = self.files[TRAIN][0]
        if self.is_saved:
            return dict(json.loads((first.parent / "dataset_info.json").read_text(encoding="utf-8"))["features"])
        from pyarrow import parquet

        schema = parquet.read_schema(first)
        described = (schema.metadata or {}).get(b"huggingface")
        if described:
            return dict(json.loads(described)["info"]["features"])
        return {name: {"dtype": str(schema.field(name).type)} for name in schema.names}

    def labels(self, column: str) -> dict[str, list[Any]]:
        """Return the labels of each split."""
        return {
            split: [it for path in paths for it in self._column(path, column)] for split, paths in self.files.items()
        }

    def _column(self, path: Path, column: str) -> list[Any]:
        import pyarrow
        from pyarrow import parquet

        try:
            if not self.is_saved:
                return list(parquet.read_table(path, columns=[column])[column].to_pylist())
            with pyarrow.memory_map(str(path)) as file:
                return list(pyarrow.ipc.open_stream(file).read_all()[column].to_pylist())
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            reason = message_of(error)
            raise DataError(f"{path}: {column} cannot be read: {reason}; restore the file") from error


class HuggingFace(Format):
    """The folder NAME, identified by the names and sizes of its files."""

    def locate(self, root: Path, dataset: DatasetConfig) -> Located:
        if importlib.util.find_spec("datasets") is None:
            raise DataError("dataset=huggingface: expected the package datasets, found none; pip install datasets")
        folder = _folder(root, dataset)
        features = _features(folder)
        column = _label_column(features, dataset, folder)
        _image_column(features, folder)
        digest = digest_of(self.files(root, dataset))
        if names := features[column].get("names"):
            return len(names), digest
        labels = [label for of_split in folder.labels(column).values() for label in of_split]
        if not labels or not all(isinstance(label, int) for label in labels):
            raise DataError(f"{folder.path}: expected integers in the column {column}, found other values or no rows")
        return max(labels) + 1, digest

    def splits(self, root: Path, dataset: DatasetConfig) -> Mapping[str, int]:
        folder = _folder(root, dataset)
        labels = folder.labels(_label_column(_features(folder), dataset, folder))
        return {split: len(of_split) for split, of_split in labels.items()}

    def read(self, root: Path, dataset: DatasetConfig) -> Mapping[str, LabelledImages]:
        folder = _folder(root, dataset)
        features = _features(folder)
        image, label = _image_column(features, folder), _label_column(features, dataset, folder)
        labels = folder.labels(label)
        found = {}
        for split, paths in folder.files.items():
            rows = _rows(folder, paths, image)
            items = [_Row(rows, image, at, folder.path) for at in range(len(rows))]
            found[split] = LabelledImages(items, labels[split])
        return found

    def files(self, root: Path, dataset: DatasetConfig) -> dict[str, int]:
        path = _folder(root, dataset).path
        names = (str(it.relative_to(root)) for it in path.rglob("*") if it.is_file() and it.suffix != ".lock")
        return sizes_below(root, sorted(names))


def _folder(root: Path, dataset: DatasetConfig) -> _Folder:
    path = root / dataset.name
    if not path.is_dir():
        others = [it.name for it in sorted(root.glob("*/"))] if root.is_dir() else []
        raise DataError(
            f"{dataset.name}: no {path}{close_to(dataset.name, others)}; put a folder of save_to_disk or the Parquet "
            "files of a repository there, e.g. with: hf download --repo-type dataset NAME --local-dir FOLDER"
        )
    return _Folder(path)


def _features(folder: _Folder) -> dict[str, Any]:
    try:
        return folder.features()
    except DataError:
        raise
    except Exception as error:  # damaged files raise many kinds
        reason = message_of(error)
        raise DataError(f"{folder.path}: the columns cannot be read: {reason}; restore the files") from error


def _label_column(features: Mapping[str, Any], dataset: DatasetConfig, folder: _Folder) -> str:
    known = [name for name, it in features.items() if isinstance(it, dict) and it.get("_type") == "ClassLabel"]
    if dataset.label is not None:
        if dataset.label not in features:
            found = (
                f"expected a column of {folder.path}{close_to(dataset.label, features)}; known: {', '.join(features)}"
            )
            raise ConfigError("dataset.label", dataset.label, found)
        return dataset.label
    known = known or [name for name in ("label", "labels") if name in features]
    if len(known) != 1:
        found = ", ".join(known) or f"none among {', '.join(features)}"
        raise ConfigError("dataset.label", None, f"expected the column with the labels in {folder.path}, found {found}")
    return known[0]


def _image_column(features: Mapping[str, Any], folder: _Folder) -> str:
    known = [name for name, it in features.items() if isinstance(it, dict) and it.get("_type") == "Image"]
    known = known or [name for name in ("image", "img") if name in features]
    if len(known) != 1:
        found = ", ".join(known) or f"none among {', '.join(features)}"
        raise DataError(f"{folder.path}: expected one column of images, found {found}; keep one of them")
    return known[0]


def _rows(folder: _Folder, paths: Sequence[Path], image: str) -> Any:
    """Return the rows of some files as a datasets.Dataset, images not decoded."""
    import datasets

    datasets.disable_progress_bars()
    try:
        if folder.is_saved:
            rows = datasets.load_from_disk(str(paths[0].parent))
        else:
            files = {"rows": [str(path) for path in paths]}
            rows = datasets.load_dataset("parquet", data_files=files, split="rows")
        return rows.cast_column(image, datasets.Image(decode=False))
    except Exception as error:  # the library raises many kinds
        reason = message_of(error)
        raise DataError(f"{paths[0].parent}: the images cannot be read: {reason}; restore the files") from error
