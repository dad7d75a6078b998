"""What headsweep knows of the head and the backbone before it imports them."""

from dataclasses import dataclass

from headsweep.config import BackboneSpec, HeadConfig, HeadSpec, ModelConfig
from headsweep.errors import ConfigError


@dataclass
class TrimmedConfig(HeadConfig):
    """The options of `trimmed`."""

    share: float = 0.25  # of the tokens, left out at each end

    def __post_init__(self) -> None:
        if not 0 <= self.share < 0.5:
            raise ConfigError("head.share", self.share, "expected a share in [0, 0.5)")


@dataclass
class PatchesConfig(ModelConfig):
    """The options of `patches`."""

    width: int = 64  # D, the width of a token
    patch: int = 4  # side of a patch, pixels


TRIMMED = HeadSpec(TrimmedConfig, "own_head.trimmed:TrimmedHead", "this package", "Trimmed mean over the tokens")
PATCHES = BackboneSpec(PatchesConfig, "own_head.patches:Patches", "Patches, each through the same MLP")
