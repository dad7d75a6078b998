"""The heads: one record each, and their options.

A package adds a head by an entry point in the group `headsweep.heads` that names its record (docs/extending.md). To add
one here: its class in `headsweep/heads/`, its record in HEADS, with a dataclass if it has options of its own, and its
YAML in `conf/head/`. `tests/heads/test_heads.py` names what else is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from headsweep.config.checks import at_least, options_of
from headsweep.config.records.registry import Registry
from headsweep.config.traits import SUMMARY, USUAL
from headsweep.errors import ConfigError


@dataclass
class HeadConfig:
    """The options of a head that has none of its own."""

    widths: ClassVar[dict[str, Sequence[int]]] = {}  # option that scales the head -> its values, ascending

    name: Annotated[str, USUAL | SUMMARY]

    def check_width(self, width: int) -> None:
        """Raise ConfigError unless the head can pool tokens of this width (D)."""


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


@dataclass
class AttentionConfig(HeadConfig):
    """A head whose attention has as many attention heads as it is given."""

    attention_heads: int  # of one branch

    def __post_init__(self) -> None:
        at_least("head.attention_heads", self.attention_heads, 1)

    def check_width(self, width: int) -> None:
        """Raise ConfigError unless `width` (D) can be split into that many attention heads."""
        if width % self.attention_heads:
            raise ConfigError(
                "head.attention_heads", self.attention_heads, f"expected a divisor of model.width={width}"
            )


@dataclass
class EpConfig(HeadConfig):
    """Efficient probing: each query has an equal part of the values' features."""

    queries: int  # M, of one branch
    d_out: int  # D over the width of the pooled vector

    def __post_init__(self) -> None:
        at_least("head.queries", self.queries, 1)
        at_least("head.d_out", self.d_out, 1)

    def check_width(self, width: int) -> None:
        """Raise ConfigError unless D / d_out can be split among the queries."""
        if width % (self.d_out * self.queries):
            raise ConfigError(
                "head.queries",
                self.queries,
                f"expected a divisor of model.width / head.d_out = {width} / {self.d_out}",
            )


@dataclass
class AimConfig(AttentionConfig):
    """AIM's probe, whose learned queries are averaged."""

    queries: int  # of one branch

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("head.queries", self.queries, 1)


@dataclass
class SimPoolConfig(HeadConfig):
    """SimPool; with gamma, a generalised weighted mean."""

    gamma: float | None  # power; null is the weighted mean

    def __post_init__(self) -> None:
        if self.gamma is not None and self.gamma <= 0:
            raise ConfigError("head.gamma", self.gamma, "expected a number > 0, or null for the weighted mean")


@dataclass
class AbmilpConfig(HeadConfig):
    """Attention-based multiple-instance pooling."""

    depth: int  # linear layers of the MLP that scores a token; 1 is seqpool

    def __post_init__(self) -> None:
        at_least("head.depth", self.depth, 1)


@dataclass
class LseConfig(HeadConfig):
    """Log-sum-exp pooling, between the mean and the maximum."""

    sharpness: float  # r; the mean for r -> 0, the maximum for r -> infinity

    def __post_init__(self) -> None:
        if self.sharpness <= 0:
            raise ConfigError("head.sharpness", self.sharpness, "expected a number > 0")


@dataclass
class VJepaConfig(AttentionConfig):
    """V-JEPA's probe; with more depth, V-JEPA 2's."""

    depth: int  # 1, and the number of self-attention blocks before the cross-attention

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("head.depth", self.depth, 1)


@dataclass
class KnnConfig(HeadConfig):
    """Nearest training images, whose votes are weighted by similarity."""

    k: int  # neighbours that vote
    temperature: float  # a neighbour of cosine similarity s counts exp(s / temperature)

    def __post_init__(self) -> None:
        at_least("head.k", self.k, 1)
        if self.temperature <= 0:
            raise ConfigError("head.temperature", self.temperature, "expected a number > 0")


@dataclass(frozen=True)
class HeadSpec:
    """One head: all that is known of it without importing torch."""

    options: type[HeadConfig]
    class_path: str  # module:class, a subclass of headsweep.heads.Head
    source: str  # paper and section, or file of a published code
    summary: str  # one line
    class_token: bool = False  # whether it reads the backbone's class token
    is_fitted: bool = False  # in one pass over the training tokens, instead of being trained

    def __post_init__(self) -> None:
        options_of(HeadConfig, self.options, self.class_path)


_OWN = {
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
    "ep": HeadSpec(
        options=EpConfig,
        class_path="headsweep.heads.ep:EpHead",
        source="EP, arXiv 2506.10178",
        summary="Efficient probing: learned queries attend to the tokens without key projection",
    ),
    "aim": HeadSpec(
        options=AimConfig,
        class_path="headsweep.heads.aim:AimHead",
        source="AIM, arXiv 2401.08541",
        summary="AIM's probe: learned queries attend to batch-normalised tokens",
    ),
    "simpool": HeadSpec(
        options=SimPoolConfig,
        class_path="headsweep.heads.simpool:SimPoolHead",
        source="SimPool, arXiv 2309.06891",
        summary="SimPool: the mean token as the query of attention whose values are not projected",
    ),
    "map": HeadSpec(
        options=AttentionConfig,
        class_path="headsweep.heads.map:MapHead",
        source="SigLIP and big_vision, arXiv 2106.04560",
        summary="Multihead attention pooling: a learned query, then an MLP",
    ),
    "abmilp": HeadSpec(
        options=AbmilpConfig,
        class_path="headsweep.heads.abmilp:AbmilpHead",
        source="ABMILP, arXiv 1802.04712 and 2412.03215",
        summary="Attention-based multiple-instance pooling: seqpool with an MLP for its scores",
    ),
    "gem": HeadSpec(
        options=HeadConfig,
        class_path="headsweep.heads.gem:GemHead",
        source="GeM, arXiv 1711.02512",
        summary="Generalised mean over the tokens with a learned power",
    ),
    "max": HeadSpec(
        options=HeadConfig,
        class_path="headsweep.heads.max:MaxHead",
        source="global max pooling of Oquab et al., CVPR 2015",
        summary="Maximum over the tokens of each feature, then a linear classifier",
    ),
    "lse": HeadSpec(
        options=LseConfig,
        class_path="headsweep.heads.lse:LseHead",
        source="log-sum-exp pooling, arXiv 1411.6228",
        summary="Log-sum-exp over the tokens of each feature, between mean and maximum",
    ),
    "cls_gap": HeadSpec(
        options=HeadConfig,
        class_path="headsweep.heads.cls_gap:ClsGapHead",
        source="DINOv2, arXiv 2304.07193",
        summary="The class token and the mean patch token, concatenated, then a linear classifier",
        class_token=True,
    ),
    "clip": HeadSpec(
        options=AttentionConfig,
        class_path="headsweep.heads.clip:ClipHead",
        source="CLIP, arXiv 2103.00020",
        summary="CLIP's attention pooling: the mean token as the query, with positions",
    ),
    "vjepa": HeadSpec(
        options=VJepaConfig,
        class_path="headsweep.heads.vjepa:VJepaHead",
        source="V-JEPA, arXiv 2404.08471, and V-JEPA 2, 2506.09985",
        summary="V-JEPA's probe: a cross-attention block with a learned query and an MLP",
    ),
    "cae": HeadSpec(
        options=AttentionConfig,
        class_path="headsweep.heads.cae:CaeHead",
        source="CAE, arXiv 2202.03026",
        summary="CAE's probe: cross-attention of a learned query, with three layer norms",
    ),
    "knn": HeadSpec(
        options=KnnConfig,
        class_path="headsweep.heads.knn:KnnHead",
        source="DINO, arXiv 2104.14294",
        summary="Nearest training images by mean patch tokens, training-free",
        is_fitted=True,
    ),
    "knn_cls": HeadSpec(
        options=KnnConfig,
        class_path="headsweep.heads.knn:KnnClsHead",
        source="DINO, arXiv 2104.14294",
        summary="Nearest training images by class tokens, training-free",
        class_token=True,
        is_fitted=True,
    ),
}

HEADS: Registry[HeadSpec] = Registry("headsweep.heads", "head", HeadSpec, _OWN)


def head_options() -> dict[str, type[HeadConfig]]:
    """Return the dataclass of each head's options."""
    return {name: head.options for name, head in HEADS.items()}
