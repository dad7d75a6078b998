"""The code version of a run: recorded when it is planned, checked out when it is reproduced.

It is a commit; without a checkout, the version of the package and a digest of its code.
"""

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

from headsweep.errors import UserError
from headsweep.folders import IS_INSTALLED, PROJECT_ROOT, code_digest, installed_version

CODE = ("src", "conf")  # folders that determine the numbers of a run


# Run no program that a repository's configuration names; write nothing.
GIT = ("git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "--no-optional-locks")


def code_version() -> dict[str, Any]:
    """Return {"commit": hash, or None outside a checkout, "dirty": whether src/ or conf/ has uncommitted changes}.

    Only a checkout of this project counts, not an enclosing one. Without one there are also {"version": of the package,
    "digest": of its code}, and unless headsweep is installed from a wheel, the reason is printed once, on stderr.
    """
    if IS_INSTALLED:
        return _package()
    try:
        top = _git("rev-parse", "--show-toplevel")
        if not PROJECT_ROOT.samefile(top):
            raise UserError(f"{PROJECT_ROOT} is inside the checkout of another project, {top}")
        commit = _git("rev-parse", "--verify", "HEAD^{commit}")
        dirty = bool(_git("status", "--porcelain", "--untracked-files=normal", "--", *CODE))
    except (OSError, subprocess.CalledProcessError, UserError) as error:
        _warn(_reason(error))
        return _package()
    return {"commit": commit, "dirty": dirty}


def _package() -> dict[str, Any]:
    return {"commit": None, "dirty": False, "version": installed_version(), "digest": code_digest()}


@cache
def _warn(reason: str) -> None:
    print(f"headsweep: no commit is recorded: {reason}", file=sys.stderr)


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, subprocess.CalledProcessError):
        message = error.stderr.strip() or "no reason given"
        return f"git finds no version of the code in {PROJECT_ROOT} ({message.splitlines()[0]})"
    return f"git cannot be run ({error})"


def is_here(commit: str, folders: Sequence[str] = CODE) -> bool:
    """Return whether the files of `folders` (src/ and conf/) equal those of `commit`.

    Raises:
        UserError: the commit is not in this repository, or there is none.
    """
    _require_checkout(commit)
    try:
        _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
        changed = _git("diff", "--name-only", commit, "--", *folders)
        return not (changed or _git("ls-files", "--others", "--exclude-standard", "--", *folders))
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"commit {commit[:10]} is not in the repository {PROJECT_ROOT}; fetch it (git fetch --all)"
        ) from error


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check `commit` out in a temporary folder; the working tree is not touched.

    Raises:
        UserError: git cannot check the commit out.
    """
    _require_checkout(commit)
    with TemporaryDirectory(prefix="headsweep-") as folder:
        place = Path(folder) / commit[:10]
        try:
            _git("worktree", "add", "--detach", str(place), commit)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().rpartition("\n")[2]
            raise UserError(f"commit {commit[:10]} cannot be checked out in a temporary folder: {reason}") from error
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _require_checkout(commit: str) -> None:
    if IS_INSTALLED:
        raise UserError(
            f"commit {commit[:10]}: expected a checkout with this commit, found headsweep installed as a package; "
            "give the command in a clone of the repository"
        )


def git_environment() -> dict[str, str]:
    """Return the environment without variables that point git to another repository, as git hooks set them."""
    kept = ("GIT_CONFIG", "GIT_EXEC_PATH")  # trusted folders, and the location of git
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith(kept)}


def _git(*arguments: str) -> str:
    command = [*GIT, "-C", str(PROJECT_ROOT), *arguments]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=git_environment())
    return answer.stdout.strip()
