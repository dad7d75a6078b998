"""Copy stored tokens to a local disk, once for all runs of a machine.

A copy lies in <loader.stage>/tokens-<folder of the tokens>. Each file is written aside and renamed, and its checksum is
verified in the copy: one that is cut off or damaged is copied again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from headsweep.data.staging import check_free, expanded
from headsweep.data.token_cache import TokenCache, locked
from headsweep.data.token_folder import TokenFolder
from headsweep.errors import DataError
from headsweep.tracking import atomic_files

_MAX_TRIES = 2  # a file may be damaged while it is copied, not again and again


def place_of_copy(folder: TokenFolder, stage: str) -> TokenFolder:
    """Return the folder of the copy; `stage` is loader.stage. Raises ConfigError for a variable that is not set."""
    return TokenFolder(expanded(stage) / f"tokens-{folder.path.name}")


def complete_copy(
    copy: TokenFolder,
    copied: TokenCache,
    folder: TokenFolder,
    stored: TokenCache,
    rows: Mapping[str, Tensor],
    heartbeat: Callable[[], None],
) -> None:
    """Copy the files of some images from `folder`, where they are computed if necessary; wait for another process.

    Args:
        copy: the local folder.
        copied: the tokens in it.
        folder: that of the tokens.
        stored: the tokens in it.
        rows: of each split.
        heartbeat: called often; may raise to stop.

    Raises:
        ConfigError: one of the two disks is too small.
        DataError: copies are damaged again and again.
    """
    if not copied.missing(rows):
        return
    with locked(copy, heartbeat):
        for _ in range(_MAX_TRIES):
            if not (missing := copied.missing(rows)):
                return
            stored.complete(rows)
            atomic_files.remove_partial(copy.path)
            check_free(copy.path, sum(folder.shard(*shard).stat().st_size for shard in missing))
            for shard in missing:
                _copy(folder.shard(*shard), copy.shard(*shard))
                heartbeat()
        if damaged := copied.missing(rows):
            raise DataError(
                f"{copy.shard(*damaged[0])} is damaged in each copy; check the disk, or give loader.stage=null"
            )


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        atomic_files.write_with(target, lambda aside: shutil.copyfileobj(file, aside, 2**22))
