"""Which version of headsweep trains: recorded beside every run."""

from __future__ import annotations

import subprocess
from typing import Any

from headsweep.config import PROJECT_ROOT


def code_version() -> dict[str, Any]:
    """{"commit": hash or None outside a checkout, "dirty": are there uncommitted changes to src/ or conf/?}."""
    try:
        commit = _git("rev-parse", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--", "src", "conf"))
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": False}
    return {"commit": commit, "dirty": dirty}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT_ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
