"""Write files so that a crash at any instant leaves the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

ABANDONED_SECONDS = 86400.0  # longer than any write: an older partial file of another machine is abandoned


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and rename it to `path`.

    Raises:
        OSError: the disk is full or not writable; `path` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{_writer()}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the text of `path` in one step."""
    write_with(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: object) -> None:
    """Replace the JSON of `path` in one step."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def sync(path: Path) -> None:
    """Make what any process wrote to a file, or renamed in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write the files of a temporary folder beside `path`, and replace `path` with it.

    A crash leaves the old folder, the new one or, between two renames, none; never one with files of both.

    Raises:
        OSError: the disk is full or not writable; `path` is then unchanged.
    """
    part, old = (path.with_name(f"{path.name}.{_writer()}.{what}.part") for what in ("new", "old"))
    part.mkdir(parents=True)
    try:
        fill(part)
        if path.exists():
            path.rename(old)
        part.rename(path)
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
    sync(path.parent)


def remove_partial(folder: Path) -> None:
    """Remove the partial files that `write_with` and `replace_folder` left in a folder when their process was killed.

    An old folder that was renamed and not yet replaced is restored. Files of live processes are left alone.
    """
    for left in sorted(folder.glob("*.part")):
        with contextlib.suppress(FileNotFoundError):  # another process removes them, too
            if _is_abandoned(left):
                _discard(left)


def _discard(left: Path) -> None:
    moved = re.fullmatch(rf"(.+)\.{re.escape(os.uname().nodename)}-\d+\.old\.part", left.name)
    original = left.with_name(moved[1]) if moved else left
    if left.is_symlink() or not left.is_dir():
        left.unlink()
    elif original.exists():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.rename(original)


def _is_abandoned(left: Path) -> bool:
    """Return whether the process that wrote it has ended; for one on another machine, judge by the age of the file."""
    here = re.fullmatch(rf"(?:.+\.)?{re.escape(os.uname().nodename)}-(\d{{1,9}})(?:\.new|\.old)?\.part", left.name)
    if here is None:
        return time.time() - left.lstat().st_mtime > ABANDONED_SECONDS
    try:
        os.kill(int(here[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # a live process of another user
        return False
    return False


def _writer() -> str:
    """Return what names this process in its temporary files."""
    return f"{os.uname().nodename}-{os.getpid()}"
