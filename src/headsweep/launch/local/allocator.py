"""Settings of glibc's allocator for the processes of runs: keep freed memory, and use huge pages.

A step on a CPU allocates the same activations each time. By default glibc returns large ones to the system as they are
freed, which fills them with zeros, 4 KiB at a time, when they are allocated again. Values do not change.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from headsweep.processes import exported

VARIABLE = "GLIBC_TUNABLES"  # read when a program starts; other C libraries and older versions ignore what is in it
_ALWAYS = 2**40  # bytes, more than a machine has
SETTINGS = f"glibc.malloc.trim_threshold={_ALWAYS}:glibc.malloc.mmap_threshold={_ALWAYS}:glibc.malloc.hugetlb=1"


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Pass the settings to programs that are started in this block; those of the user take precedence."""
    given = os.environ.get(VARIABLE)
    with exported(VARIABLE, f"{SETTINGS}:{given}" if given else SETTINGS):  # the last value of a name is used
        yield
