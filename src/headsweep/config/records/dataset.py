"""The data sets: one record each. Their keys are those of `DatasetConfig`, with values in `conf/dataset/NAME.yaml`.

A package adds one by an entry point in the group `headsweep.datasets` that names its record (docs/extending.md).
"""

from dataclasses import dataclass

from headsweep.config.records.registry import Registry


@dataclass(frozen=True)
class DatasetSpec:
    """One data set: all that is known of it without importing torch. The functions take a `DatasetConfig`."""

    # module:function; returns the number of classes, and a digest of the files or None if their content never changes.
    # Raises DataError if files are missing; imports neither torch nor numpy.
    locate: str
    load: str  # module:function; returns the sources of train, validation (None: to be drawn) and test
    summary: str  # one line
    images: int | None = None  # in all splits; None: counted in its files
    has_validation: bool = False  # whether it always has a validation split of its own


_LOCATE, _LOAD = "headsweep.data.locate:locate", "headsweep.data.datasets:load"
DATASETS: Registry[DatasetSpec] = Registry(
    "headsweep.datasets",
    "dataset.name",
    DatasetSpec,
    {
        "digits": DatasetSpec(f"{_LOCATE}_digits", f"{_LOAD}_digits", "scikit-learn's handwritten digits", 1797),
        "cifar10": DatasetSpec(f"{_LOCATE}_cifar", f"{_LOAD}_cifar", "CIFAR-10", 60_000),
        "cifar100": DatasetSpec(f"{_LOCATE}_cifar", f"{_LOAD}_cifar", "CIFAR-100", 60_000),
        "imagefolder": DatasetSpec(f"{_LOCATE}_folder", f"{_LOAD}_tree", "A folder of images, one folder a class"),
        "imagenet": DatasetSpec(f"{_LOCATE}_imagenet", f"{_LOAD}_tree", "ImageNet-1k, as image folders"),
        # Formats, each of which reads any set by its name.
        "torchvision": DatasetSpec(f"{_LOCATE}_format", f"{_LOAD}_format", "Any set of torchvision"),
        "medmnist": DatasetSpec(f"{_LOCATE}_format", f"{_LOAD}_format", "Any set of MedMNIST"),
        "huggingface": DatasetSpec(f"{_LOCATE}_format", f"{_LOAD}_format", "Any set of Hugging Face's hub"),
        "webdataset": DatasetSpec(f"{_LOCATE}_format", f"{_LOAD}_format", "Any set of tar files"),
    },
)
