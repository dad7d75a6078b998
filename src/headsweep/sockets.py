"""The folder of the sockets that connect a process with its children: its path is short, and it is always removed.

multiprocessing puts sockets into TMPDIR. The system refuses a path of more than 107 bytes, and removes nothing after a
SIGKILL; the folder of a killed process is removed when the next one makes its own.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path

from headsweep.errors import UserError

LONGEST = 107  # bytes of a socket's path (unix(7))
_PREFIX = "headsweep-sockets-"
_CONTENT = "pymp-"  # the folders that multiprocessing makes in it; one with anything else is not to be removed
_BELOW = len("/headsweep-sockets-12345678/pymp-12345678/listener-12345678")
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")
_VARIABLE = "HEADSWEEP_SOCKETS"


@functools.cache
def folder() -> Path | None:
    """Make multiprocessing use a new folder for the sockets of this process and its children; None in a child.

    Raises:
        UserError: there is no place for it.
    """
    if multiprocessing.parent_process() is not None:
        return None  # it uses its parent's
    path = _new_folder()
    # multiprocessing removes at -100 what it has put there
    util.Finalize(None, shutil.rmtree, args=(path,), kwargs={"ignore_errors": True}, exitpriority=-101)
    usual, tempfile.tempdir = tempfile.tempdir, str(path)
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = usual
    return path


@contextlib.contextmanager
def exported() -> Iterator[None]:
    """Pass the folder to programs that are started in this block, for `remove_at_exit`."""
    os.environ[_VARIABLE] = str(folder())
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def remove_at_exit() -> None:
    """Remove the folder of the parent process when this one ends, if the parent has ended before."""
    if path := os.environ.pop(_VARIABLE, None):
        atexit.register(_remove_unless_used, Path(path))


def _new_folder() -> Path:
    reasons = []
    for place in _places():
        if len(os.fsencode(place)) + _BELOW > LONGEST:
            reasons.append(f"{place} is too long")
            continue
        try:
            _remove_left_over(place)
            return _locked(place)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
    expected = f"expected a writable folder whose path has at most {LONGEST - _BELOW} bytes"
    raise UserError(f"TMPDIR={os.environ.get('TMPDIR', '')}: {expected}, found none ({'; '.join(reasons)}); make one")


def _places() -> list[Path]:
    with contextlib.suppress(FileNotFoundError):  # none may be written
        return [Path(tempfile.gettempdir()), *map(Path, _OTHERS)]
    return list(map(Path, _OTHERS))


def _locked(place: Path) -> Path:
    """Return a new folder, locked while this process lives; until it is locked, its name has another prefix."""
    path = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=place))
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)  # the system frees it however the process ends
    return path.rename(path.with_name(path.name[1:]))


def _remove_left_over(place: Path) -> None:
    for path in place.glob(f"{_PREFIX}*"):
        _remove_unless_used(path)


def _remove_unless_used(path: Path) -> None:
    with contextlib.suppress(OSError):  # locked, another user's, or just removed
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if all(entry.name.startswith(_CONTENT) for entry in path.iterdir()):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)
