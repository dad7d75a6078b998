"""The folder of stored tokens: one for each backbone, data set and data type, used by all runs that train on them.

CACHE/NAME-DIGEST/  tokens.json       what the tokens are of, and how many there are
                    labels.npz        labels of the images of each split
                    speed.json        how long the largest computation took
                    SPLIT-00000.bin   tokens of some images, in the order of the split, then their CRC-32
                    view0-00000.bin   the same of an augmented view of the training images
                    lock              held by the process that computes

Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headsweep.config import BackboneMode, RunConfig, TimmConfig, spec_of
from headsweep.config.keys import flat, has_trait, without_neutral
from headsweep.config.traits import RESULT
from headsweep.errors import ConfigError, UserError
from headsweep.text import size_of
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.typed_files import Damaged, read_json, require

TOKENS_LOGGER = "headsweep.tokens"  # its warnings are printed by the launcher, too
LOGGER = logging.getLogger(TOKENS_LOGGER)

MOST = 2**40
LAYOUT = 1  # raised when other tokens would be computed for the same configuration
RECORD = "tokens.json"
_DIGEST = "dataset.digest"
_PIXELS = ("name", "image_size", "channels", "mean", "std", "crop_ratio", "digest")
# Parts of the augmentation that change no view.
_OF_TARGETS = {f"augmentation.{name}" for name in ("mixup", "cutmix", "mix_probability", "label_smoothing")}
_NAME = re.compile(r".+-[0-9a-f]{12}")
_FILE = re.compile(r"lock|labels\.npz.*|speed\.json.*|tokens\.json.*|\w+-\d{5}\.bin.*")
_FIX = "remove the folder, and the next run computes the tokens again"


@dataclass(frozen=True)
class TokenRecord:
    """What is stored in a folder."""

    source: dict[str, Any]  # see `source_of`
    splits: dict[str, int]  # images of each
    tokens: int  # of an image, prefix tokens included
    width: int
    dtype: str
    views: int = 0  # of each training image
    precision: str | None = None  # that `precision=auto` was when they were first computed; None: not recorded

    def check(self) -> None:
        """Raise ValueError for values out of range."""
        require("dtype", self.dtype, self.dtype in ("bfloat16", "float32"), "bfloat16 or float32")
        known = self.precision in (None, "bfloat16", "float32")
        require("precision", self.precision, known, "bfloat16 or float32")
        require("views", self.views, 0 <= self.views <= MOST, f"an integer in [0, {MOST}]")
        require("splits", self.splits, "train" in self.splits, "a split called train")
        for key, count in {"tokens": self.tokens, "width": self.width, **self.splits}.items():
            require(key, count, 1 <= count <= MOST, f"an integer in [1, {MOST}]")

    @property
    def row_bytes(self) -> int:
        """Bytes of the tokens of one image."""
        return self.tokens * self.width * (2 if self.dtype == "bfloat16" else 4)

    @property
    def bytes(self) -> int:
        """Bytes of all tokens."""
        return (sum(self.splits.values()) + self.views * self.splits["train"]) * self.row_bytes

    def count(self, split: str) -> int:
        """Return the number of images of a split, or of a view of the training images."""
        return self.splits[split] if split in self.splits else self.splits["train"]


@dataclass(frozen=True)
class Speed:
    """How long the computation of some tokens took, reading of the images included."""

    images: int
    seconds: float

    def check(self) -> None:
        """Raise ValueError for values out of range."""
        require("images", self.images, self.images >= 1, "an integer >= 1")
        require("seconds", self.seconds, self.seconds > 0, "a number > 0")


def view_name(view: int) -> str:
    """Return the name of a view of the training images in the places of a split's."""
    return f"view{view}"


class TokenFolder:
    """Paths and sizes in the folder of stored tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels = path / "labels.npz"
        self._record, self._speed = path / RECORD, path / "speed.json"

    @classmethod
    def of(cls, run: RunConfig) -> TokenFolder:
        """Return the folder of a planned run."""
        source = source_of(run)
        digest = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:12]
        return cls(cache_of(run) / f"{run.model.name}-{run.dataset.name}-{digest}")

    def shard(self, split: str, number: int) -> Path:
        """Return the file of some images of a split."""
        return self.path / f"{split}-{number:05d}.bin"

    def lock(self) -> FileLock:
        """Return the lock of the process that computes."""
        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / "lock")

    def write_record(self, record: TokenRecord) -> None:
        atomic_files.write_json(self._record, asdict(record))

    def record(self) -> TokenRecord | None:
        """Return what is stored; None before the first process has begun. Raises Damaged."""
        return read_json(self._record, TokenRecord, _FIX)

    def has_record(self) -> bool:
        return self._record.exists()

    def is_remainder(self) -> bool:
        """Return whether a folder without a record has the name of one, and holds only files of stored tokens."""
        names = [path.name for path in self.path.iterdir()]
        return bool(names and _NAME.fullmatch(self.path.name) and all(map(_FILE.fullmatch, names)))

    def whole_record(self) -> TokenRecord | None:
        """Return what is stored; None before the first process has begun, or if the file was damaged and is removed."""
        try:
            return self.record()
        except Damaged as error:
            LOGGER.warning("damaged: %s, %s; it is written again", error.path, error.reason)
            self._record.unlink(missing_ok=True)
            return None

    def record_speed(self, speed: Speed) -> None:
        """Record how long a computation took, unless an earlier one was of more images: its start counts for less."""
        if (earlier := self.speed()) is None or earlier.images <= speed.images:
            atomic_files.write_json(self._speed, asdict(speed))

    def speed(self) -> Speed | None:
        """Return that of the largest computation; None if it is not known, or damaged: estimates alone need it."""
        try:
            return read_json(self._speed, Speed, _FIX)
        except Damaged:
            return None

    def held(self) -> int:
        """Return the bytes that are on disk."""
        return sum(path.stat().st_size for path in self.path.glob("*.bin"))

    def on_disk(self) -> int:
        """Return the bytes of tokens on disk, those of partly written files included."""
        return self.held() + sum(path.stat().st_size for path in self.path.glob("*.part"))

    def remove(self) -> None:
        """Remove the folder. Raises UserError if a process computes its tokens."""
        try:
            with self.lock().acquire(timeout=0):
                shutil.rmtree(self.path)
        except Timeout as error:
            raise UserError(f"{self.path}: a process is computing these tokens; stop it first") from error


def check_room(folder: Path, needed: int) -> None:
    """Raise ConfigError if the disk of a folder, which may not exist yet, has fewer free bytes."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        expected = f"expected {size_of(needed)} free for tokens, found {size_of(free)}"
        raise ConfigError(
            "paths.cache", folder.parent, f"{expected}; give a folder on another disk, or tokens.cache=off"
        )


def cache_of(run: RunConfig) -> Path:
    """Return the folder that holds the tokens of a run among others."""
    return Path(run.paths.cache) if run.paths.cache else OutputFolder(Path(run.paths.output)).cache


def folders_in(cache: Path) -> Iterator[TokenFolder]:
    """Yield the folders in a cache, by name."""
    return (TokenFolder(path.parent) for path in sorted(cache.glob(f"*/{RECORD}")))


def all_folders_in(cache: Path) -> Iterator[TokenFolder]:
    """Yield also the folders whose record is absent, by name, and none that holds anything else."""
    folders = map(TokenFolder, sorted(cache.glob("*")))
    return (it for it in folders if it.path.is_dir() and (it.has_record() or it.is_remainder()))


def of_earlier_images(run: RunConfig) -> TokenFolder | None:
    """Return a folder of the tokens of the run if its images were others; None if there is none."""
    source = {**source_of(run), _DIGEST: None}
    for folder in folders_in(cache_of(run)):
        with suppress(Damaged):
            record = folder.record()
            found = record.source if record else {}
            if {**found, _DIGEST: None} == source and found[_DIGEST] != run.dataset.digest:
                return folder
    return None


def source_of(run: RunConfig) -> Mapping[str, Any]:
    """Return key -> plain value of all that the tokens of a run depend on."""
    values = flat(run)
    kept = [key for key in values if key.startswith("model.") and has_trait(key, RESULT)]
    kept += [f"dataset.{name}" for name in _PIXELS] + ["precision", "tokens.cache"]
    kept += [key for key in ("dataset.format", "dataset.label") if values[key] is not None]
    kept += ["seed"] if run.backbone is BackboneMode.random else []
    # A backbone, but one of timm, may have a class token only if the head reads it, and all tokens depend on it.
    reads_class_token = run.tokens.class_token or spec_of(run.head).class_token
    class_token = not isinstance(run.model, TimmConfig) and reads_class_token
    blocks = without_neutral({key: values[key] for key in ("tokens.layer", "tokens.last", "tokens.norm")})
    if run.tokens.views:
        kept += ["tokens.views", *(key for key in values if key.startswith("augmentation.") and key not in _OF_TARGETS)]
    return {**{key: values[key] for key in kept}, **blocks, "class_token": class_token, "layout": LAYOUT}
