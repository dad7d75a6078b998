"""Processes of runs keep the memory that they free, with glibc's settings of the launcher or the user's own."""

import os
import platform
import subprocess
import sys

import pytest

from headsweep.launch.local import forkserver
from headsweep.launch.local.allocator import VARIABLE, keeping_memory

# Page faults of the third of three equal allocations of 32 MiB.
FAULTS = """
import resource
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    before = faults()
    memory = b"x" * (32 << 20)
    del memory
    after = faults()
print(after - before)
"""


def third_allocation() -> int:
    return int(subprocess.check_output([sys.executable, "-S", "-c", FAULTS], text=True))


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 26),
    reason="needs GLIBC_TUNABLES",
)
def test_freed_memory_is_kept_unless_the_user_decides_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert third_allocation() > 100
    with keeping_memory():
        assert third_allocation() < 10
    assert VARIABLE not in os.environ
    own = "glibc.malloc.mmap_threshold=131072"
    monkeypatch.setenv(VARIABLE, own)
    with keeping_memory():
        assert third_allocation() > 100
    assert os.environ[VARIABLE] == own


def test_the_forkserver_starts_with_these_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(forkserver, "ensure_running", lambda: seen.append(os.environ.get(VARIABLE)))
    forkserver._ensure_server()
    assert seen[0] is not None and "trim_threshold" in seen[0]
