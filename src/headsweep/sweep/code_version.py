"""Which version of headsweep trains: recorded beside every run, and had back when a run is to be trained again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headsweep.config import PROJECT_ROOT
from headsweep.errors import UserError

_CODE = ("src", "conf")  # what decides the numbers of a run


def code_version() -> dict[str, Any]:
    """{"commit": hash or None outside a checkout, "dirty": are there uncommitted changes to src/ or conf/?}."""
    try:
        commit = _git("rev-parse", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--", *_CODE))
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": False}
    return {"commit": commit, "dirty": dirty}


def is_here(commit: str, folders: Sequence[str] = _CODE) -> bool:
    """Are src/ and conf/ (or other `folders`) here those of `commit`, whatever else was committed since?

    Raises:
        UserError: this checkout does not know the commit.
    """
    try:
        _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
        changed = _git("diff", "--name-only", commit, "--", *folders)
        return not (changed or _git("ls-files", "--others", "--exclude-standard", "--", *folders))
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"commit {commit[:10]} is not known in {PROJECT_ROOT}; fetch it (git fetch --all)") from error


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A copy of `commit` in a temporary folder; the files here stay as they are.

    Raises:
        UserError: git cannot check it out.
    """
    with TemporaryDirectory(prefix="headsweep-") as folder:
        place = Path(folder) / commit[:10]
        try:
            _git("worktree", "add", "--detach", str(place), commit)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().rpartition("\n")[2]
            raise UserError(f"commit {commit[:10]} cannot be checked out beside this one: {reason}") from error
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT_ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
