"""Output folders that a group shares: a folder with the set-group-ID bit that the group may write (`chmod g+ws`).

Files and folders within belong to its group, which can write them only if the umask of their creator allows it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_GROUP = stat.S_ISGID | stat.S_IWGRP


def share_with_group(output: Path) -> None:
    """Let the group write what this process and those that it starts create, if it shares the output folder."""
    if is_shared(output):
        os.umask(os.umask(0o777) & ~stat.S_IRWXG)


def let_group_write(file: Path) -> None:
    """Do so for a file of this user whose program chose its permissions, if the group shares the folder around it."""
    if is_shared(file.parent):
        file.chmod(file.stat().st_mode | stat.S_IWGRP)


def is_shared(folder: Path) -> bool:
    """Return whether a group shares the folder."""
    try:
        return folder.stat().st_mode & _GROUP == _GROUP
    except OSError:  # it does not exist yet
        return False
