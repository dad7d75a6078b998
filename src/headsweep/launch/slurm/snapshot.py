"""A copy of code and defaults that jobs run: edits after submission change nothing that is queued."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[4]
SOURCES = (("src/headsweep", "*.py"), ("conf", "*.yaml"))  # the defaults fill in keys that older runs lack


def home(place: Path) -> Path:
    """Return the folder within `place` for a copy of the present code, named by its content."""
    digest = hashlib.sha256()
    for file in _files():
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return place / digest.hexdigest()[:12]


def snapshot(home: Path) -> None:
    """Copy the code to `home`, unless it exists.

    Raises:
        OSError: the disk is full or not writable; no partial copy is left.
    """
    if not home.exists():
        _copy(_files(), home)


def search_path(home: Path) -> Path:
    """Return the folder of a copy for PYTHONPATH."""
    return home / "src"


def _files() -> list[Path]:
    return sorted(file for folder, pattern in SOURCES for file in (ROOT / folder).rglob(pattern))


def _copy(files: list[Path], home: Path) -> None:
    """Copy to a temporary folder, then rename it: two commands may do so at the same time."""
    temporary = home.with_name(f"{home.name}.{uuid4().hex[:8]}.part")
    try:
        for file in files:
            copy = temporary / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        temporary.rename(home)
    except OSError:
        if not home.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
