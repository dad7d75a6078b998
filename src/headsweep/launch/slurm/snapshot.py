"""A copy of code and defaults that travels with the jobs: what is edited after submission changes nothing queued."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[4]
SOURCES = (("src/headsweep", "*.py"), ("conf", "*.yaml"))  # the defaults fill in keys that older runs lack


def home(place: Path) -> Path:
    """The folder within `place` that is a copy of the present code's own, by its content."""
    digest = hashlib.sha256()
    for file in _files():
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return place / digest.hexdigest()[:12]


def snapshot(home: Path) -> None:
    """Copy the code to `home`, unless it is there.

    Raises:
        OSError: the disk is full or not writable; no half copy is left.
    """
    if not home.exists():
        _copy(_files(), home)


def search_path(home: Path) -> Path:
    """The folder of a copy to put on PYTHONPATH."""
    return home / "src"


def _files() -> list[Path]:
    return sorted(file for folder, pattern in SOURCES for file in (ROOT / folder).rglob(pattern))


def _copy(files: list[Path], home: Path) -> None:
    """Aside first, then renamed: two commands may do so at once."""
    aside = home.with_name(f"{home.name}.{uuid4().hex[:8]}.part")
    try:
        for file in files:
            copy = aside / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        aside.rename(home)
    except OSError:
        if not home.exists():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
