"""What a power cut would leave."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def survives(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Is all that the file at `path` holds now synced by this process? It is asked from here on."""
    sync, content = os.fsync, [path.read_bytes() if path.exists() else b""]

    def fsync(handle: int) -> None:
        sync(handle)
        if Path(f"/proc/self/fd/{handle}").readlink() == path:
            content[:] = [path.read_bytes()]

    monkeypatch.setattr(os, "fsync", fsync)
    return lambda: path.read_bytes() == content[0]
