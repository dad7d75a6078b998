"""Results of `headsweep inspect` in the folder of a run.

inspection/inspection.json  the numbers and what they mean (Inspection)
inspection/attention.png    sample images with the weight of each token for each head, unless the head has no weights
inspection/diversity.png    the matrices as heat maps, if there are several heads
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.typed_files import Damaged, check_shares, read_json, require, require_share

FOLDER = "inspection"
NUMBERS, ATTENTION, DIVERSITY = "inspection.json", "attention.png", "diversity.png"

Matrix = list[list[float | None]]  # (k k): row i, column j is of heads i and j; None where it is undefined
Draw = Callable[[BinaryIO], object]


@dataclass(frozen=True)
class Question:
    """What to measure."""

    split: str  # val or test
    images: int | None  # number of images, from the first; None: all
    samples: int  # images in attention.png

    def check(self) -> None:
        """Raise ValueError for an unknown split."""
        require("question.split", self.split, self.split in ("val", "test"), "val or test")


@dataclass(frozen=True)
class Inspection:
    """How accurate the heads of a run are, and how they differ."""

    checkpoint: str  # SHA-256 of the checkpoint
    question: Question
    images: int  # number of images that were used
    heads: list[float]  # top-1 of each head
    metrics: dict[str, float]  # means over pairs are left out if there is one head, or they are undefined
    matrices: dict[str, Matrix]  # "disagreement", "kl", "cka"
    meaning: dict[str, str]  # name of a metric or matrix -> its definition in a line
    earlier: list[dict[str, float]] = field(default_factory=list)  # metrics of earlier inspections, oldest first
    folder: Path | None = field(default=None, compare=False)  # of its files; not stored

    def check(self) -> None:
        """Raise ValueError for values out of range."""
        self.question.check()
        require("images", self.images, self.images >= 1, "an integer of at least 1")
        require("heads", self.heads, bool(self.heads), "a top-1 of each head")
        require("metrics.top1", None, "top1" in self.metrics, "a number")
        for head, top1 in enumerate(self.heads):
            require_share(f"heads[{head}]", top1)
        for metrics in (self.metrics, *self.earlier):
            check_shares(metrics)
        for name, matrix in self.matrices.items():
            sizes = {len(matrix), *map(len, matrix)}
            require(f"matrices.{name}", matrix, sizes == {len(self.heads)}, f"{len(self.heads)} rows and columns")

    @property
    def attention(self) -> Path | None:
        """The picture of token weights; None if the head has none."""
        return self._file(ATTENTION)

    @property
    def diversity(self) -> Path | None:
        """The picture of the matrices; None for one head."""
        return self._file(DIVERSITY)

    @property
    def files(self) -> list[Path]:
        """All files."""
        return [path for path in (self._file(NUMBERS), self.attention, self.diversity) if path]

    def _file(self, name: str) -> Path | None:
        path = self.folder / name if self.folder else None
        return path if path and path.is_file() and not path.is_symlink() else None


def read_inspection(folder: Path) -> Inspection | None:
    """Return the inspection of the run in `folder`; None if there is none, or if it is of an older checkpoint.

    Raises:
        Damaged: the file is not as `write_inspection` writes it.
    """
    found = last_inspection(folder)
    return found if found and found.checkpoint == checkpoint_digest(RunFolder(folder)) else None


def last_inspection(folder: Path) -> Inspection | None:
    """Return the last inspection of the run in `folder`, possibly of an older checkpoint."""
    fix = f"`headsweep inspect {folder} --again` writes it again"
    path = folder / FOLDER / NUMBERS
    if path.parent.is_symlink():
        raise Damaged(path.parent, "expected a folder, found a link", fix)
    found = read_json(path, Inspection, fix)
    return replace(found, folder=path.parent) if found else None


def write_inspection(folder: Path, found: Inspection, pictures: Mapping[str, Draw]) -> Inspection:
    """Replace the inspection of the run in `folder`, all files in one step.

    Args:
        folder: of the run.
        found: the numbers.
        pictures: file name -> function that draws it.

    Raises:
        OSError: the disk is full or not writable; the old inspection stays.
    """

    def fill(new: Path) -> None:
        atomic_files.write_json(new / NUMBERS, {key: value for key, value in asdict(found).items() if key != "folder"})
        for name, draw in pictures.items():
            atomic_files.write_with(new / name, draw)

    atomic_files.replace_folder(folder / FOLDER, fill)
    return replace(found, folder=folder / FOLDER)


def checkpoint_digest(run: RunFolder) -> str:
    """Return the SHA-256 of the run's checkpoint; empty if there is none."""
    digest = hashlib.sha256()
    try:
        with run.checkpoint.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()
