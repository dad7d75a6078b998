"""The heads: one record each, and their options.

To add a head: its class in `headsweep/heads/`, its record in HEADS here, with a dataclass if it has options of its own,
and its YAML in `conf/head/`. `tests/heads/test_heads.py` names what else is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from headsweep.config.traits import SUMMARY, USUAL
from headsweep.errors import ConfigError


@dataclass
class HeadConfig:
    """The options of a head that has none of its own."""

    widths: ClassVar[dict[str, Sequence[int]]] = {}  # option that scales the head -> its values, ascending

    name: Annotated[str, USUAL | SUMMARY]


@dataclass
class ClassAttentionConfig(HeadConfig):
    """A head that ends in the class-attention block, whose widths are D/4 and D/32."""

    def check_width(self, width: int) -> None:
        """Raise ConfigError unless `width` (D) can be split into 8 attention heads of D/32."""
        if width % 32:
            raise ConfigError(
                "model.width",
                width,
                f"expected a multiple of 32 with head={self.name} (8 attention heads of width D/32); "
                f"nearest: {max(32, width // 32 * 32)} or {width // 32 * 32 + 32}",
            )


@dataclass
class GramConfig(HeadConfig):
    """A head whose query is the tokens' Gram matrix; its batch norms need at least 2 images per micro-batch."""

    widths: ClassVar[dict[str, Sequence[int]]] = {"gram_dim": range(16, 513, 16)}

    gram_dim: int  # G, channels of the Gram matrix; a multiple of 16

    def __post_init__(self) -> None:
        if self.gram_dim < 16 or self.gram_dim % 16:
            raise ConfigError(
                "head.gram_dim",
                self.gram_dim,
                "expected a multiple of 16 (both 1x1 convolutions of the gram query have 8 groups), e.g. 32, 64, 192",
            )


@dataclass
class GaConfig(GramConfig, ClassAttentionConfig):
    """The gram query, then class attention."""


@dataclass(frozen=True)
class HeadSpec:
    """One head: all that is known of it without importing torch."""

    options: type[HeadConfig]
    class_path: str  # module:class, a subclass of headsweep.heads.Head
    source: str  # paper and section, or file of a published code
    summary: str  # one line
    class_token: bool = False  # whether it reads the backbone's class token


HEADS: dict[str, HeadSpec] = {
    "gap": HeadSpec(
        options=HeadConfig,
        class_path="headsweep.heads.gap:GapHead",
        source="the GAP-FC baseline of Gramian attention, Table 2",
        summary="Mean over the tokens, then a linear classifier",
    ),
    "cls": HeadSpec(
        options=HeadConfig,
        class_path="headsweep.heads.cls:ClsHead",
        source="ViT, section 3.1",
        summary="The class token of the backbone, then a linear classifier",
        class_token=True,
    ),
    "seqpool": HeadSpec(
        options=HeadConfig,
        class_path="headsweep.heads.seqpool:SeqPoolHead",
        source="CCT, section 3.3",
        summary="Sequence pooling: a softmax-weighted mean over the tokens, then a linear classifier",
    ),
    "se": HeadSpec(
        options=HeadConfig,
        class_path="headsweep.heads.se:SeHead",
        source="SeqAttention's code, models/se_cct.py",
        summary="Squeeze-and-excitation over the tokens: a gated mean",
    ),
    "cait": HeadSpec(
        options=ClassAttentionConfig,
        class_path="headsweep.heads.cait:CaitHead",
        source="CaiT, section 3",
        summary="A learned class token as the query of class attention",
    ),
    "at": HeadSpec(
        options=ClassAttentionConfig,
        class_path="headsweep.heads.at:AtHead",
        source="SeqAttention's code, models/at_cct.py",
        summary="The mean of 128 linear maps over the token axis as the query of class attention, shared by all heads",
    ),
    "sg": HeadSpec(
        options=GramConfig,
        class_path="headsweep.heads.sg:SgHead",
        source="SeqAttention's code, models/sg_cct.py",
        summary="The gram query of ga without attention",
    ),
    "ga": HeadSpec(
        options=GaConfig,
        class_path="headsweep.heads.ga:GaHead",
        source="Gramian attention, section 3",
        summary="Gramian attention: the Gram matrix of the tokens as the query of class attention",
    ),
    "seqattn": HeadSpec(
        options=ClassAttentionConfig,
        class_path="headsweep.heads.seqattn:SeqAttnHead",
        source="SeqAttention",
        summary="SeqAttention: sequence pooling as the query of class attention",
    ),
}


def head_options() -> dict[str, type[HeadConfig]]:
    """Return the dataclass of each head's options."""
    return {name: head.options for name, head in HEADS.items()}
