"""What headsweep knows of the head and the backbone before it imports their classes."""

from dataclasses import dataclass

from headsweep.config import BackboneSpec, HeadConfig, HeadSpec, ModelConfig
from headsweep.errors import ConfigError


@dataclass
class NormPoolConfig(HeadConfig):
    """The options of `normpool`."""

    sharpness: float = 1.0  # at first

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
