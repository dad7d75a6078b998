"""The heads' options.

To add a head: a dataclass and an entry in HEADS here, one class in `headsweep/heads/`, one YAML in `conf/head/`, its
formula and a row in `tests/heads/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from headsweep.config.traits import SUMMARY, USUAL
from headsweep.errors import ConfigError


@dataclass
class HeadConfig:
    """What every head has; a head's own options are added by its subclass."""

    widths: ClassVar[dict[str, Sequence[int]]] = {}  # option that scales the head -> its values, ascending

    name: Annotated[str, USUAL | SUMMARY]


@dataclass
class GapConfig(HeadConfig):
    """Mean over the tokens (the GAP-FC baseline of the Gramian attention paper, Table 2)."""


@dataclass
class ClsConfig(HeadConfig):
    """The backbone's class token (ViT)."""


@dataclass
class SeqPoolConfig(HeadConfig):
    """Sequence pooling (CCT paper, section 3.3)."""


@dataclass
class SeConfig(HeadConfig):
    """Squeeze-and-excitation over the tokens (the SeqAttention paper's code)."""


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
class GramConfig(HeadConfig):
    """A head that makes a query of the tokens' Gram matrix; its batch norms need at least 2 images a micro-batch."""

    widths: ClassVar[dict[str, Sequence[int]]] = {"gram_dim": range(16, 513, 16)}

    gram_dim: int  # G, channels of the Gram matrix; a multiple of 16

    def __post_init__(self) -> None:
        if self.gram_dim < 16 or self.gram_dim % 16:
            raise ConfigError(
                "head.gram_dim",
                self.gram_dim,
                "want a multiple of 16 (both 1x1 convolutions of the gram query have 8 groups), e.g. 32, 64, 192",
            )


@dataclass
class CaitConfig(ClassAttentionConfig):
    """A learned class token as the query of class attention (CaiT)."""


@dataclass
class AtConfig(ClassAttentionConfig):
    """A mean of linear maps over the token axis as the query of class attention (the SeqAttention paper's code)."""


@dataclass
class SgConfig(GramConfig):
    """The gram query without attention (the SeqAttention paper's code)."""


@dataclass
class GaConfig(GramConfig, ClassAttentionConfig):
    """Gramian attention (ICCV 2023): the gram query, then class attention."""


@dataclass
class SeqAttnConfig(ClassAttentionConfig):
    """SeqAttention: sequence pooling as the query of class attention."""


HEADS: dict[str, type[HeadConfig]] = {
    "gap": GapConfig,
    "cls": ClsConfig,
    "seqpool": SeqPoolConfig,
    "se": SeConfig,
    "cait": CaitConfig,
    "at": AtConfig,
    "sg": SgConfig,
    "ga": GaConfig,
    "seqattn": SeqAttnConfig,
}
