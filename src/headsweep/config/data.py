"""The keys of data sets and of the augmentation of their images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from headsweep.config.checks import at_least, fraction, name
from headsweep.config.records.dataset import DATASETS
from headsweep.config.traits import DATA, NOTHING, PACE, PLANNED, SUMMARY, USUAL, Neutral
from headsweep.errors import ConfigError


class DatasetFormat(Enum):
    """Formats of which any data set can be read by its name; each is a class in `headsweep/data/formats/`."""

    torchvision = "torchvision"
    medmnist = "medmnist"
    huggingface = "huggingface"
    webdataset = "webdataset"


@dataclass
class DatasetConfig:
    """A data set, the size of its images, and its splits."""

    name: Annotated[str, USUAL | DATA | SUMMARY]  # of a record in DATASETS, or with a format of any set
    root: Annotated[str | None, PACE]  # folder that holds the data; None for embedded data
    download: Annotated[bool, NOTHING]  # whether the loader may download the data; checksums are verified
    image_size: Annotated[int, USUAL | DATA | SUMMARY]  # side of the model's square input image, pixels
    channels: Annotated[int, USUAL | DATA]
    num_classes: Annotated[int | None, USUAL | DATA | PLANNED]  # None: counted in an image folder
    mean: list[float]  # per channel, of images scaled to [0, 1]
    std: list[float]
    crop_ratio: Annotated[float, USUAL | DATA]  # side of the centre crop over the resized side in evaluation
    # Share of the training images held out, drawn with the seed, where the set has no validation split.
    validation: Annotated[float, USUAL | DATA]
    digest: Annotated[str | None, USUAL | DATA | PLANNED]  # of the names and sizes of an image folder's files
    format: Annotated[DatasetFormat | None, USUAL | DATA, Neutral(None)]
    # Column (huggingface) or key of the JSON files (webdataset) with the labels; None: the only one, or the .cls files.
    label: Annotated[str | None, USUAL | DATA, Neutral(None)]

    @property
    def kind(self) -> str:
        """Name of the record in DATASETS whose functions read the data."""
        return self.format.value if self.format else self.name

    def __post_init__(self) -> None:
        name("dataset.name", self.name, in_path=True)
        by_format = [it.value for it in DatasetFormat]
        if self.format is None and (self.name in by_format or self.name not in DATASETS):
            known, formats = (
                [it for it in DATASETS if it not in by_format],
                ", ".join(f"dataset={it}" for it in by_format),
            )
            raise ConfigError(
                "dataset.name", self.name, f"expected one of {', '.join(known)}, or any name with one of {formats}"
            )
        if self.label is not None and self.format not in (DatasetFormat.huggingface, DatasetFormat.webdataset):
            raise ConfigError("dataset.label", self.label, "expected null, but for dataset=huggingface or webdataset")
        if self.download and self.format not in (None, DatasetFormat.torchvision):
            expected = "expected false: only data sets of torchvision are downloaded"
            raise ConfigError("dataset.download", self.download, expected)
        at_least("dataset.image_size", self.image_size, 8)
        at_least("dataset.channels", self.channels, 1)
        if self.num_classes is not None:
            at_least("dataset.num_classes", self.num_classes, 2)
        if not 0 <= self.validation < 1:
            raise ConfigError("dataset.validation", self.validation, "expected a share in [0, 1)")
        if not 0 < self.crop_ratio <= 1:
            raise ConfigError("dataset.crop_ratio", self.crop_ratio, "expected a share in (0, 1]")
        for key in ("mean", "std"):
            got = getattr(self, key)
            if len(got) != self.channels:
                raise ConfigError(
                    f"dataset.{key}", got, f"expected one number per channel (dataset.channels={self.channels})"
                )
        if min(self.std) <= 0:
            raise ConfigError("dataset.std", self.std, "expected numbers > 0")


RANDAUGMENT = re.compile(r"rand(-(m|n|p|mstd)[0-9]+(\.[0-9]*)?|-inc[01])*")


class AugmentationOrder(Enum):
    """Position of the random resized crop in the augmentation of a training image."""

    crop_first = "crop_first"  # crop, flip, RandAugment, erasing: timm's order, which the official CCT uses
    crop_last = "crop_last"  # flip, RandAugment, crop, erasing: the SeqAttention paper's code


@dataclass
class AugmentationConfig:
    """Augmentation of training images; null or 0 turns a part off."""

    # With crop_last, larger files are first resized to the model's image size.
    order: AugmentationOrder
    flip: float  # probability of a horizontal flip
    crop_scale: list[float] | None  # [least, most] share of the area that a random resized crop keeps
    crop_ratio: list[float]  # [least, most] aspect ratio of that crop
    randaugment: str | None  # timm's notation, e.g. rand-m9-mstd0.5-inc1
    erasing: float  # probability of random erasing
    erasing_count: int  # most boxes that are erased in one image
    mixup: float  # alpha of the Beta distribution
    cutmix: float  # alpha of the Beta distribution
    mix_probability: float  # probability that a batch is mixed (by one of the two, if both are on)
    label_smoothing: float

    def __post_init__(self) -> None:
        for key in ("flip", "erasing", "mix_probability"):
            fraction(f"augmentation.{key}", getattr(self, key), closed=True)
        fraction("augmentation.label_smoothing", self.label_smoothing)
        at_least("augmentation.erasing_count", self.erasing_count, 1)
        for key in ("mixup", "cutmix"):
            if getattr(self, key) < 0:
                raise ConfigError(f"augmentation.{key}", getattr(self, key), "expected an alpha >= 0 (0: off)")
        for key in ("crop_scale", "crop_ratio"):
            got = getattr(self, key)
            if got is not None and not (len(got) == 2 and 0 < got[0] <= got[1]):
                raise ConfigError(f"augmentation.{key}", got, "expected [least, most] with 0 < least <= most")
        if self.crop_scale is not None and self.crop_scale[1] > 1:
            raise ConfigError("augmentation.crop_scale", self.crop_scale, "expected shares <= 1")
        if self.randaugment is not None and not RANDAUGMENT.fullmatch(self.randaugment):
            raise ConfigError(
                "augmentation.randaugment",
                self.randaugment,
                "expected timm's notation, e.g. rand-m9-mstd0.5-inc1 (m: magnitude, mstd: its spread, n: operations, "
                "p: probability of each, inc1: severity grows with magnitude), or null",
            )

    def first_active(self) -> tuple[str, object] | None:
        """Return key and value of the first part that changes pixels, as opposed to targets; None if there is none."""
        keys = ("flip", "crop_scale", "randaugment", "erasing")
        return next(((key, value) for key in keys if (value := getattr(self, key))), self.first_mixing())

    def first_mixing(self) -> tuple[str, object] | None:
        """Return key and value of the first part that mixes images; None if there is none."""
        keys = ("mixup", "cutmix") if self.mix_probability else ()
        return next(((key, value) for key in keys if (value := getattr(self, key))), None)
