"""A copy of code and defaults that jobs run: edits after submission change nothing that is queued.

It is laid out as a checkout, wherever the package is.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

from headsweep.folders import code_digest, code_files


def home(place: Path) -> Path:
    """Return the folder within `place` for a copy of the present code, named by its content."""
    return place / code_digest()


def snapshot(home: Path) -> None:
    """Copy the code to `home`, unless it exists.

    Raises:
        OSError: the disk is full or not writable; no partial copy is left.
    """
    if not home.exists():
        _copy(home)


def search_path(home: Path) -> Path:
    """Return the folder of a copy for PYTHONPATH."""
    return home / "src"


def _copy(home: Path) -> None:
    """Copy to a temporary folder, then rename it: two commands may do so at the same time."""
    temporary = home.with_name(f"{home.name}.{uuid4().hex[:8]}.part")
    try:
        for name, file in code_files().items():
            copy = temporary / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        temporary.rename(home)
    except OSError:
        if not home.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
