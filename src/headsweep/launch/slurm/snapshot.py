"""A copy of code and defaults that jobs run: edits after submission change nothing that is queued.

It is laid out as a checkout, wherever the package is. Beside headsweep and its defaults, it holds the packages that add
heads and backbones, with the entry points that name them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from headsweep.config.records.choices import packages, registered
from headsweep.config.records.registry import Package
from headsweep.folders import code_files, content_digest
from headsweep.plan.packages import files_of

Contents = dict[Path, bytes]  # path in the copy -> content


def home(place: Path) -> Path:
    """Return the folder within `place` for a copy of the present code, named by its content."""
    return place / content_digest(_contents().items())[:12]


def copies(sweep: Path) -> Path:
    """Return the folder of the copies that the jobs of a sweep run."""
    return sweep / "slurm" / "code"


def home_of_jobs(sweep: Path) -> Path:
    """Return the folder for the copy of the present code that new jobs of a sweep run."""
    return home(copies(sweep))


def copied(sweep: Path) -> Path:
    """Copy the present code for new jobs of a sweep, unless that is done; return the folder. Raises as `snapshot`."""
    snapshot(home := home_of_jobs(sweep))
    return home


def snapshot(home: Path) -> None:
    """Copy the code to `home`, unless it exists.

    Raises:
        OSError: the disk is full or not writable; no partial copy is left.
    """
    if not home.exists():
        _copy(_contents(), home)


def search_path(home: Path) -> Path:
    """Return the folder of a copy for PYTHONPATH."""
    return home / "src"


def _contents() -> Contents:
    found = {Path(name): file.read_bytes() for name, file in code_files().items()}
    for package in packages():
        found |= {Path("src") / path: file.read_bytes() for file, path in files_of(package)}
        found |= {Path("src") / path: text.encode() for path, text in _metadata(package)}
    return found


def _metadata(package: Package) -> Iterator[tuple[str, str]]:
    """Yield the files by which Python finds the entry points of a package in the copy, before those installed."""
    folder = f"{package.distribution.replace('-', '_')}-{package.version}.dist-info"
    yield f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {package.distribution}\nVersion: {package.version}\n"
    lines = [line for group, points in registered(package).items() for line in (f"[{group}]", *points)]
    yield f"{folder}/entry_points.txt", "\n".join(lines) + "\n"


def _copy(contents: Contents, home: Path) -> None:
    """Copy to a temporary folder, then rename it: two commands may do so at the same time."""
    temporary = home.with_name(f"{home.name}.{uuid4().hex[:8]}.part")
    try:
        for path, content in contents.items():
            copy = temporary / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        temporary.rename(home)
    except OSError:
        if not home.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
