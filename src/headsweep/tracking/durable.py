"""Writing files so that a crash at any instant leaves the old content or the new, never a part (law 5)."""

from __future__ import annotations

import json
import os
import shutil
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


def replace_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write the files of a new folder beside `path`, and put it in the place of `path`.

    A crash leaves the old folder, the new one or, between two renames, none; never one with files of both.

    Raises:
        OSError: the disk is full or not writable; `path` is then as it was before.
    """
    aside, old = (path.with_name(f"{path.name}.{os.getpid()}.{what}.part") for what in ("new", "old"))
    aside.mkdir(parents=True)
    try:
        fill(aside)
        if path.exists():
            path.rename(old)
        aside.rename(path)
    finally:
        for left in (aside, old):
            shutil.rmtree(left, ignore_errors=True)
    sync(path.parent)
