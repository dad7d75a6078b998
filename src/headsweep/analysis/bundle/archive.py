"""A gzipped tar file whose bytes depend on names and contents alone: no time, owner or order of a disk."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from headsweep.tracking import atomic_files

_TIME = 315532800  # 1980-01-01: what zip files begin with, and no program warns of


def write(path: Path, root: str, members: Mapping[str, Path]) -> None:
    """Write an archive in one step.

    Args:
        path: the archive; what is there is replaced.
        root: folder in the archive.
        members: name below `root` -> file.

    Raises:
        OSError: a file cannot be read, or the disk is full; `path` is then unchanged.
    """
    atomic_files.write_with(path, lambda file: _fill(file, root, members))


def _fill(file: BinaryIO, root: str, members: Mapping[str, Path]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(members):
            _add(archive, f"{root}/{name}", members[name])


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as content:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = path.stat().st_size, _TIME, 0o644
        archive.addfile(member, content)
