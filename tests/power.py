"""What a power cut would leave."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bytes]:
    """What the file at `path` held when this process last synced it. It is asked from here on."""
    sync, content = os.fsync, [path.read_bytes() if path.exists() else b""]

    def fsync(handle: int) -> None:
        sync(handle)
        if Path(f"/proc/self/fd/{handle}").readlink() == path:
            content[:] = [path.read_bytes()]

    monkeypatch.setattr(os, "fsync", fsync)
    return lambda: content[0]


def survives(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Is all that the file at `path` holds now synced by this process? It is asked from here on."""
    on_disk = synced(path, monkeypatch)
    return lambda: path.read_bytes() == on_disk()
