"""The heads' options.

To add a head: a dataclass and an entry in HEADS here, one class in `headsweep/heads/`, one YAML in `conf/head/`, one
row in `tests/heads/`.
"""

from dataclasses import dataclass

from headsweep.errors import ConfigError


@dataclass
class HeadConfig:
    """What every head has; a head's own options are added by its subclass."""

    name: str


@dataclass
class GapConfig(HeadConfig):
    """Mean over the tokens (the GAP-FC baseline of the Gramian attention paper, Table 2)."""


@dataclass
class SeqPoolConfig(HeadConfig):
    """Sequence pooling (CCT paper, section 3.3)."""


@dataclass
class ClassAttentionConfig(HeadConfig):
    """A head that ends in the class-attention block, whose widths are D/4 and D/32."""

    def check_width(self, width: int) -> None:
        """Raise ConfigError unless `width` (D) can be split into 8 attention heads of D/32."""
        if width % 32:
            raise ConfigError(
                "model.width",
                width,
                f"head={self.name} needs a multiple of 32 (8 attention heads of width D/32); "
                f"nearest: {max(32, width // 32 * 32)} or {width // 32 * 32 + 32}",
            )


@dataclass
class GaConfig(ClassAttentionConfig):
    """Gramian attention (ICCV 2023)."""

    gram_dim: int  # G, channels of the Gram matrix; a multiple of 8

    def __post_init__(self) -> None:
        if self.gram_dim < 8 or self.gram_dim % 8 or self.gram_dim * (self.gram_dim + 1) // 2 % 8:
            raise ConfigError(
                "head.gram_dim",
                self.gram_dim,
                "want a multiple of 16 (both 1x1 convolutions of the gram query have 8 groups), e.g. 32, 64, 192",
            )


@dataclass
class SeqAttnConfig(ClassAttentionConfig):
    """SeqAttention: sequence pooling as the query of class attention."""


HEADS: dict[str, type[HeadConfig]] = {
    "gap": GapConfig,
    "seqpool": SeqPoolConfig,
    "ga": GaConfig,
    "seqattn": SeqAttnConfig,
}
