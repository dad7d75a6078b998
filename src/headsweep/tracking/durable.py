"""Writing files so that a crash at any instant leaves the old content or the new, never a part (law 5)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, sync it, and rename it to `path`.

    Raises:
        OSError: the disk is full or not writable; `path` then holds what it held before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the text of `path` in one step."""
    write_with(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: object) -> None:
    """Replace the JSON of `path` in one step."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def sync(path: Path) -> None:
    """Make what any process wrote to a file, or renamed in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
