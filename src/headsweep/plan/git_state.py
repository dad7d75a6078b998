"""Which version of headsweep trains: recorded beside every run, and had back when a run is to be trained again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headsweep.config import PROJECT_ROOT
from headsweep.errors import UserError

_CODE = ("src", "conf")  # what decides the numbers of a run


# Nothing is run that a repository's configuration names, and nothing written.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "--no-optional-locks")


def code_version() -> dict[str, Any]:
    """{"commit": hash or None outside a checkout, "dirty": are there uncommitted changes to src/ or conf/?}.

    Only a checkout of this project counts, not one that it lies in. Why there is none is said once, on stderr.
    """
    try:
        top = _git("rev-parse", "--show-toplevel")
        if not PROJECT_ROOT.samefile(top):
            raise UserError(f"{PROJECT_ROOT} lies in the checkout of another project, {top}")
        commit = _git("rev-parse", "--verify", "HEAD^{commit}")
        dirty = bool(_git("status", "--porcelain", "--untracked-files=normal", "--", *_CODE))
    except (OSError, subprocess.CalledProcessError, UserError) as error:
        _warn(_reason(error))
        return {"commit": None, "dirty": False}
    return {"commit": commit, "dirty": dirty}


@cache
def _warn(reason: str) -> None:
    print(f"headsweep: no commit is recorded, because {reason}", file=sys.stderr)


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.strip() or "no reason given"
        return f"git does not know the code in {PROJECT_ROOT} ({said.splitlines()[0]})"
    return f"git cannot be run ({error})"


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


def git_environment() -> dict[str, str]:
    """The environment without what would let git take another repository than that of the folder, as hooks do."""
    kept = ("GIT_CONFIG", "GIT_EXEC_PATH")  # who is trusted, and where git lies
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith(kept)}


def _git(*arguments: str) -> str:
    command = [*_GIT, "-C", str(PROJECT_ROOT), *arguments]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=git_environment())
    return answer.stdout.strip()
