"""Writing files so that a crash at any instant leaves the old content or the new, never a part (law 5)."""

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

ABANDONED_SECONDS = 86400.0  # nothing takes so long to write: what another machine began then has been given up


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, sync it, and rename it to `path`.

    Raises:
        OSError: the disk is full or not writable; `path` then holds what it held before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{_writer()}.part")
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
    aside, old = (path.with_name(f"{path.name}.{_writer()}.{what}.part") for what in ("new", "old"))
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


def sweep_up(folder: Path) -> None:
    """Remove what `write_with` and `replace_folder` left half-written in a folder when their process was killed.

    An old folder that was moved aside and not yet replaced is put back. What may still be written is left alone.
    """
    for left in sorted(folder.glob("*.part")):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps up, too
            if _is_abandoned(left):
                _discard(left)


def _discard(left: Path) -> None:
    moved = re.fullmatch(rf"(.+)\.{re.escape(os.uname().nodename)}-\d+\.old\.part", left.name)
    whole = left.with_name(moved[1]) if moved else left
    if left.is_symlink() or not left.is_dir():
        left.unlink()
    elif whole.exists():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.rename(whole)


def _is_abandoned(left: Path) -> bool:
    """Has the process ended that wrote it? Of another machine's, only time tells."""
    here = re.fullmatch(rf"(?:.+\.)?{re.escape(os.uname().nodename)}-(\d{{1,9}})(?:\.new|\.old)?\.part", left.name)
    if here is None:
        return time.time() - left.lstat().st_mtime > ABANDONED_SECONDS
    try:
        os.kill(int(here[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # of another user
        return False
    return False


def _writer() -> str:
    """This process, in the names of files that it has not yet written whole."""
    return f"{os.uname().nodename}-{os.getpid()}"
