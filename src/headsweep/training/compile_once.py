"""One cold compile for all processes of a machine that want the same: they share torch's cache, and wait for one."""

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
    """Of all who enter with one key at a time, let the first through alone, and the others when it has left.

    Its lock dies with its process; who comes when one has been through does not wait. Raises OSError if torch's cache
    cannot be written.
    """
    from torch._inductor.codecache import cache_dir  # seconds, for those who compile

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
    """Names what decides which code is generated for the steps of a run; `images` are those of a micro-batch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    shapes = (run.dataset.image_size, run.dataset.channels, run.dataset.num_classes, images)
    objective = (run.decorrelation, run.accumulation, run.precision)
    model = {key: value for key, value in flat(run).items() if key.startswith("model.") and has_trait(key, PACE)}
    how = (run.compile, run.activation_checkpointing, name, torch.__version__, _code())
    parts = (model, run.head, run.heads, shapes, objective, how)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """A digest of this package's modules: another version of a head is other code to generate."""
    digest = hashlib.sha256()
    for path in sorted(Path(headsweep.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
