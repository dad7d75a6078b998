"""Memory that this process may use, whatever other processes use now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")


def usable_gib(proc: Path = Path("/proc/self/cgroup"), root: Path = _ROOT) -> float:
    """Return the memory of the machine or, in a container or job, the limit of its control groups, in GiB."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits(proc, root)]) / 2**30


def _limits(proc: Path, root: Path) -> Iterator[int]:
    """Yield the limits in bytes of the control group and its parents, of versions 1 and 2."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            yield from _up(root, group, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _up(root / "memory", group, "memory.limit_in_bytes")


def _up(root: Path, group: str, name: str) -> Iterator[int]:
    """Yield the limits from a group up to the root: a container may see only the root, which is then its own."""
    inside = PurePosixPath(group).relative_to("/")
    for folder in (inside, *inside.parents):
        try:
            text = (root / folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # else "max"
            yield int(text)
