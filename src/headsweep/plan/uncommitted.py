"""The uncommitted changes to src/ and conf/ that runs are planned with, stored once for each content as a patch."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from headsweep.credentials import redacted
from headsweep.errors import UserError
from headsweep.folders import PROJECT_ROOT
from headsweep.plan.git_state import CODE, GIT, git_environment
from headsweep.text import first_line
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_record import RunRecord

MOST_BYTES = 2**20  # of a patch: more are data rather than code
_DIFF = ("diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color")


def with_changes(code: dict[str, Any], output: Path) -> dict[str, Any]:
    """Return a code version with `changes`, the name of the stored patch; as it is if nothing was changed.

    Passwords in addresses are *** in the patch. One that is too large, or that git cannot make, is not stored, and one
    line on stderr gives the reason.
    """
    if not code["dirty"]:
        return code
    try:
        patch = redacted(_patch())
    except (OSError, subprocess.CalledProcessError) as error:
        _warn(f"git cannot list them ({error})")
        return code
    if len(patch) > MOST_BYTES:
        _warn(f"{len(patch):,} characters, more than {MOST_BYTES:,}")
        return code
    name = hashlib.sha256(patch.encode()).hexdigest()[:16]
    path = OutputFolder(output).patch(name)
    if not path.exists():
        atomic_files.write_text(path, patch)
    return {**code, "changes": name}


def patch_of(record: RunRecord, output: Path) -> Path | None:
    """Return the patch that a run was planned with; None if there is none, or it was removed."""
    name = record.code.get("changes")
    path = OutputFolder(output).patch(name) if name else None
    return path if path and path.is_file() else None


def apply(patch: Path, root: Path) -> None:
    """Apply a patch to a checkout. Raises UserError if git refuses it."""
    try:
        _git(root, "apply", "--whitespace=nowarn", str(patch.resolve()))
    except subprocess.CalledProcessError as error:
        reason = first_line(error.stderr.decode(errors="replace"))
        raise UserError(f"{patch}: git cannot apply it to the recorded commit ({reason})") from error


@cache
def _warn(reason: str) -> None:
    print(f"headsweep: uncommitted changes are not recorded: {reason}", file=sys.stderr)


def _patch() -> str:
    """Return the difference from the commit, untracked files included."""
    untracked = _git(PROJECT_ROOT, "ls-files", "-z", "--others", "--exclude-standard", "--", *CODE)
    names = [name for name in untracked.decode(errors="surrogateescape").split("\0") if name]
    parts = [_git(PROJECT_ROOT, *_DIFF, "HEAD", "--", *CODE)]
    parts += [_git(PROJECT_ROOT, *_DIFF, "--no-index", "/dev/null", name, differs=True) for name in names]
    return b"".join(parts).decode(errors="backslashreplace")


def _git(root: Path, *arguments: str, differs: bool = False) -> bytes:
    """Run git; with `differs`, exit code 1 means a difference."""
    command = [*GIT, "-C", str(root), *arguments]
    answer = subprocess.run(command, capture_output=True, env=git_environment())
    if not (differs and answer.returncode == 1):
        answer.check_returncode()
    return answer.stdout
