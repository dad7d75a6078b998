"""The records of head, backbone, data set and metric, which headsweep reads first: nothing here needs torch."""

from dataclasses import dataclass

from headsweep.config import (
    BackboneSpec,
    DatasetConfig,
    DatasetSpec,
    HeadConfig,
    HeadSpec,
    MetricSpec,
    ModelConfig,
)
from headsweep.errors import ConfigError


@dataclass
class NormPoolConfig(HeadConfig):
    """The options of `normpool`."""

    sharpness: float = 1.0  # initial value

    def __post_init__(self) -> None:
        if self.sharpness <= 0:
            raise ConfigError("head.sharpness", self.sharpness, "expected a number > 0")


@dataclass
class PatchesConfig(ModelConfig):
    """The options of `patches`."""

    width: int = 64  # D, the width of a token
    patch: int = 4  # side of a patch, pixels


NORMPOOL = HeadSpec(
    options=NormPoolConfig,
    class_path="own_head.normpool:NormPoolHead",
    source="this package",
    summary="Mean over the tokens, weighted by their norms",
)
PATCHES = BackboneSpec(
    options=PatchesConfig,
    class_path="own_head.patches:Patches",
    summary="Patches of the image, each through the same MLP",
)
SQUARES = DatasetSpec(
    locate="own_head.records:locate_squares",
    load="own_head.squares:load",
    summary="Filled and hollow squares",
    images=640,
)
BRIER = MetricSpec(
    title="Brier",
    note="mean squared distance of the probabilities from the label's",
    compute="own_head.brier:brier",
    unit="squared",
    lower_is_better=True,
)


def locate_squares(dataset: DatasetConfig) -> tuple[int, str | None]:
    """Return the number of classes, and no digest: the images never change. Missing files would be a DataError."""
    return 2, None
