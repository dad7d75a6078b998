"""Staging: copy the files of a data set to a local disk, once for all runs of a machine.

A copy lies in <loader.stage>/<data set>-<digest of names and sizes>. Each file is written aside and renamed, and what
is missing is looked up by name and size at every use: a copy that was killed, or that a cleaner of temporary files has
thinned out, is completed and never taken for whole.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from headsweep.config import DatasetConfig
from headsweep.data import locate
from headsweep.data.formats import FORMATS
from headsweep.data.formats.base import digest_of
from headsweep.data.listing import read_tree
from headsweep.errors import ConfigError, DataError

_COPIES = 8  # at a time: network latency exceeds the time to copy one image
_ROUND = 256  # files between two checks for signals and failures
_BLOCK = 4096  # bytes; a file takes whole blocks on disk


def stage(dataset: DatasetConfig, folder: str) -> Path:
    """Copy the files of all splits to `folder` unless they exist; wait if another process is copying.

    Args:
        dataset: resolved, read from image files or in a format.
        folder: loader.stage; environment variables in it are those of this machine.

    Returns:
        What stands for `dataset.root`.

    Raises:
        ConfigError: the folder's disk is too small, or a variable is not set.
        DataError: the images are not those that were planned, or change while they are copied.
    """
    sizes = _files(dataset)
    copy = expanded(folder) / f"{dataset.name}-{digest_of(sizes)}"
    copy.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{copy}.lock"):
        missing = {name: size for name, size in sizes.items() if _size(copy / name) != size}
        _check_room(missing, copy)
        _copy_all(missing, locate.root_of(dataset), copy)
    return copy


def _files(dataset: DatasetConfig) -> dict[str, int]:
    """Return the bytes of the files to copy, by their names below the root."""
    if dataset.format is not None:
        return FORMATS[dataset.format].files(locate.root_of(dataset), dataset)
    return locate.image_sizes(dataset, read_tree(locate.split_folders(dataset)))


def _size(copy: Path) -> int | None:
    """Return the bytes of a copied file; None if it does not exist."""
    try:
        return copy.stat().st_size
    except FileNotFoundError:
        return None


def expanded(folder: str) -> Path:
    """Return the folder of loader.stage on this machine. Raises ConfigError for a variable that is not set."""
    found = os.path.expandvars(folder)
    if "$" in found:
        raise ConfigError("loader.stage", folder, "expected variables that are set on this machine")
    return Path(found).expanduser()


def _check_room(missing: dict[str, int], copy: Path) -> None:
    check_free(copy, sum(-(-size // _BLOCK) * _BLOCK for size in missing.values()))


def check_free(copy: Path, needed: int) -> None:
    """Raise ConfigError if the disk of a copy has fewer free bytes."""
    free = shutil.disk_usage(copy).free
    if needed > free:
        found = f"expected {needed:,} free bytes, found {free:,}; give a folder on another disk, or null"
        raise ConfigError("loader.stage", copy.parent, found)


def _copy_all(missing: dict[str, int], root: Path, copy: Path) -> None:
    for parent in {os.path.dirname(name) for name in missing}:  # noqa: PTH120 - pathlib takes seconds for a million
        Path(copy, parent).mkdir(parents=True, exist_ok=True)
    files = list(missing.items())
    with ThreadPoolExecutor(_COPIES) as pool:
        for start in range(0, len(files), _ROUND):
            list(pool.map(lambda file: _copy(root / file[0], copy / file[0], file[1]), files[start : start + _ROUND]))


def _copy(source: Path, target: Path, size: int) -> None:
    aside = Path(f"{target}.part")
    shutil.copyfile(source, aside)
    if aside.stat().st_size != size:
        raise DataError(f"{source} changed while it was copied; give the command again when it no longer changes")
    aside.replace(target)
