"""Compile the same code once per machine: its processes share torch's cache, and one of them fills it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

import headsweep
from headsweep.config import RunConfig
from headsweep.config.keys import flat, has_trait
from headsweep.config.traits import PACE


@contextmanager
def compiled_once(key: str) -> Iterator[None]:
    """Serialize the first compilation per key.

    The lock is released when its process ends; after one compilation, no process waits. Raises OSError if torch's cache
    cannot be written.
    """
    from torch._inductor.codecache import cache_dir  # takes seconds to import

    folder = Path(cache_dir()) / "headsweep"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{key}.done"
    with FileLock(folder / f"{key}.lock"):
        if not done.exists():
            yield
            done.touch()
            return
    yield


def shape_key(run: RunConfig, images: int, device: torch.device) -> str:
    """Return a hash of what determines the compiled code of a run; `images` is the size of a micro-batch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    shapes = (run.dataset.image_size, run.dataset.channels, run.dataset.num_classes, images)
    objective = (run.decorrelation, run.accumulation, run.precision)
    model = {key: value for key, value in flat(run).items() if key.startswith("model.") and has_trait(key, PACE)}
    how = (run.backbone, run.compile, run.activation_checkpointing, name, torch.__version__, _code())
    parts = (model, run.head, run.heads, shapes, objective, how)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """Return a digest of this package's modules: a changed head compiles to other code."""
    digest = hashlib.sha256()
    for path in sorted(Path(headsweep.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
