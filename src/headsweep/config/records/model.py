"""The backbones: one record per family, and their options.

To add a size: a YAML in `conf/model/`, a row in `headsweep/models/registry.py`. A package adds a family by an entry
point in the group `headsweep.backbones` that names its record (docs/extending.md). To add one here: its record in
BACKBONES, a dataclass for its options, and one class in `headsweep/models/`.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, ClassVar

from headsweep.config.checks import at_least, fraction, name, options_of
from headsweep.config.records.registry import Registry
from headsweep.config.traits import MEMORY, NOTHING, PLANNED, RESULT, SUMMARY, USUAL, Neutral
from headsweep.errors import ConfigError


class BackboneMode(Enum):
    """What happens to the backbone's weights."""

    train = "train"  # trained with the head; model.checkpoint may hold weights of both to start from
    finetune = "finetune"  # trained from the backbone in model.checkpoint, under a new head
    frozen = "frozen"  # the backbone in model.checkpoint, as it is: only the head is trained
    random = "random"  # as frozen, with initial weights instead of a checkpoint

    @property
    def is_frozen(self) -> bool:
        """Whether only the head is trained."""
        return self in (BackboneMode.frozen, BackboneMode.random)


class TokenType(Enum):
    """Data type of the stored tokens of a frozen backbone; `off` computes them in each step."""

    off = "off"
    bfloat16 = "bfloat16"
    float32 = "float32"


class Positions(Enum):
    """Positional embedding of the tokens (CCT paper, section 3.2)."""

    learnable = "learnable"
    sine = "sine"
    none = "none"


class Tokenizer(Enum):
    """How an image becomes tokens (CCT paper, section 3.2)."""

    convolution = "convolution"  # CCT: convolution, ReLU and max-pooling, without bias
    patch = "patch"  # ViT-Lite and CVT: one convolution whose stride is its kernel, with bias


class ResidualPrecision(Enum):
    """Data type of the residual stream, the tokens that each block adds to, under autocast to bfloat16."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Block(Enum):
    """What an encoder block computes; all kinds have the same parameters."""

    pre_norm = "pre_norm"  # the SeqAttention paper's code: x + attention(norm x), then x + mlp(norm x)
    stream_norm = "stream_norm"  # the CCT authors' code: x = norm(x + attention(norm x)), then x + mlp(x)
    no_attention = "no_attention"  # the SeqAttention code's `sg` models: x + norm x, then x + mlp(norm x)


class AttentionKernel(Enum):
    """What computes the attention of a block in a training step on a GPU."""

    torch = "torch"
    triton = "triton"  # headsweep's own kernels, for small images in bfloat16; with other draws of dropout


KERNEL_WIDTHS = (16, 32, 64)  # of an attention head, for the kernels of AttentionKernel.triton


@dataclass
class ModelConfig:
    """The options that every backbone has."""

    has_pretrained: ClassVar[bool] = False  # whether its builder takes pretrained weights

    family: str
    name: Annotated[str, USUAL | SUMMARY]
    checkpoint: Annotated[str | None, NOTHING]  # weights to start from: of headsweep, of a published code or of timm
    # Load timm's weights as timm does, adapted to image size and channels: from `checkpoint`, which is filled in with
    # the file in timm's cache, downloaded if needed, where it is null.
    pretrained: Annotated[bool, USUAL, Neutral(False)] = field(default=False, kw_only=True)
    checkpoint_digest: Annotated[str | None, RESULT | MEMORY | PLANNED]  # SHA-256 of that file

    def __post_init__(self) -> None:
        name("model.name", self.name, in_path=True)  # the folder of a sweep has it in its name
        if self.pretrained and not self.has_pretrained:
            expected = f"expected false: timm has no weights of {self.name}; give model.checkpoint=FILE"
            raise ConfigError("model.pretrained", "true", expected)


@dataclass
class CompactConfig(ModelConfig):
    """ViT-Lite, CVT and CCT (arXiv 2104.05704, section 3); `cls` on ViT-Lite is ViT-Lite, `seqpool` on it CVT."""

    width: int  # D, the embedding dimension of a token
    depth: int  # number of transformer blocks
    attention_heads: int  # self-attention heads of a block; must divide width
    mlp_ratio: float  # hidden width of a block's MLP over D
    tokenizer: Tokenizer
    tokenizer_kernel: int  # side of the tokenizer's convolutions
    tokenizer_layers: int  # number of layers; each one of `convolution` halves the grid
    block: Block
    residual_precision: Annotated[ResidualPrecision, USUAL, Neutral("float32")] = field(
        default=ResidualPrecision.float32, kw_only=True
    )
    positions: Positions
    dropout: float  # on tokens and projections
    attention_dropout: float  # on attention weights
    drop_path: float  # stochastic depth of the last block; linear from 0
    attention_kernel: Annotated[AttentionKernel, USUAL, Neutral("torch")] = field(
        default=AttentionKernel.torch, kw_only=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.match(r"(cct|cvt|vit)_[0-9]", self.name):
            raise ConfigError(
                "model.name",
                self.name,
                f"expected a name like cct_7_3x1 or vit_7_4 with model.family=compact; a model of timm is model=timm "
                f"model.name={self.name}",
            )
        for key in ("width", "depth", "attention_heads", "tokenizer_kernel", "tokenizer_layers"):
            at_least(f"model.{key}", getattr(self, key), 1)
        for key in ("dropout", "attention_dropout", "drop_path"):
            fraction(f"model.{key}", getattr(self, key))
        if int(self.width * self.mlp_ratio) < 1:
            raise ConfigError(
                "model.mlp_ratio", self.mlp_ratio, "expected a larger ratio: the hidden width of the MLP is 0"
            )
        if self.width % self.attention_heads:
            raise ConfigError(
                "model.attention_heads", self.attention_heads, f"expected a divisor of model.width={self.width}"
            )
        if self.attention_kernel is AttentionKernel.triton:
            self._check_kernel()
        if self.tokenizer is Tokenizer.patch and self.tokenizer_layers != 1:
            raise ConfigError("model.tokenizer_layers", self.tokenizer_layers, "expected 1 with model.tokenizer=patch")

    def _check_kernel(self) -> None:
        head_width = self.width // self.attention_heads
        if head_width not in KERNEL_WIDTHS:
            *others, widest = KERNEL_WIDTHS
            kernels = f"{', '.join(map(str, others))} or {widest}"
            why = f"an attention head has {head_width} channels, and the kernels are for {kernels}"
        elif self.block is Block.no_attention:
            why = "model.block=no_attention has none"
        else:
            return
        raise ConfigError("model.attention_kernel", "triton", f"expected torch: {why}")

    def side(self, pixels: int) -> int:
        """Return the number of tokens along a side of `pixels`; 0 or less if the image is too small."""
        if self.tokenizer is Tokenizer.patch:
            return pixels // self.tokenizer_kernel
        for _ in range(self.tokenizer_layers):
            pixels = (pixels + 2 * self.padding - self.tokenizer_kernel) // self.stride + 1
            pixels = (pixels + 2 - 3) // 2 + 1
        return pixels

    @property
    def stride(self) -> int:
        """Of the tokenizer's convolutions, as in the published models."""
        return self.tokenizer_kernel if self.tokenizer is Tokenizer.patch else max(1, self.tokenizer_kernel // 2 - 1)

    @property
    def padding(self) -> int:
        """Of the tokenizer's convolutions, as in the published models."""
        return 0 if self.tokenizer is Tokenizer.patch else max(1, self.tokenizer_kernel // 2)

    def check_image_size(self, pixels: int) -> None:
        """Raise ConfigError unless images of that side divide into whole tokens."""
        if self.side(pixels) < 1:
            raise ConfigError(
                "dataset.image_size", pixels, "expected larger images: the tokenizer makes no token of these"
            )
        if self.tokenizer is Tokenizer.patch and pixels % self.tokenizer_kernel:
            raise ConfigError(
                "dataset.image_size", pixels, f"expected a multiple of model.tokenizer_kernel={self.tokenizer_kernel}"
            )


# Keywords of timm.create_model -> the keys that set them.
_SET_BY_KEYS = {
    "num_classes": "dataset.num_classes",
    "in_chans": "dataset.channels",
    "img_size": "dataset.image_size",
    "global_pool": "head",
    "features_only": "head",
    "pretrained": "model.pretrained",
    "checkpoint_path": "model.checkpoint",
}


@dataclass
class TimmConfig(ModelConfig):
    """Any backbone of timm, by its name there."""

    has_pretrained: ClassVar[bool] = True

    small_stem: bool  # a ResNet stem for 32x32 images: 3x3 convolution of stride 1, no pooling
    options: dict[str, Any] | None  # passed to timm.create_model, e.g. {drop_path_rate: 0.1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and self.small_stem:
            raise ConfigError(
                "model.small_stem", "true", "expected false with model.pretrained=true, whose stem it lacks"
            )
        for option, got in (self.options or {}).items():
            if option in _SET_BY_KEYS:
                key = _SET_BY_KEYS[option]
                raise ConfigError(f"model.options.{option}", got, f"expected no such option: {key} sets it")


@dataclass
class TokensConfig:
    """The tokens that a head reads, and how those of a frozen backbone are stored."""

    cache: Annotated[TokenType, USUAL, Neutral("bfloat16")]
    layer: Annotated[int, USUAL | SUMMARY, Neutral(-1)]  # block whose tokens are read, from 0, or negative from the end
    last: Annotated[int, USUAL | SUMMARY, Neutral(1)]  # blocks up to `layer` whose tokens are concatenated
    norm: Annotated[bool, USUAL | SUMMARY, Neutral(True)]  # whether the final norm is applied to the tokens of each
    class_token: Annotated[bool, USUAL | SUMMARY, Neutral(False)]  # append the class token to the patch tokens
    views: Annotated[int, USUAL | SUMMARY, Neutral(0)]  # augmented views of each training image; 0: none

    def __post_init__(self) -> None:
        at_least("tokens.last", self.last, 1)
        at_least("tokens.views", self.views, 0)

    @property
    def reads_last(self) -> bool:
        """Whether the head reads the tokens of the last block, after the final norm."""
        return (self.layer, self.last, self.norm) == (-1, 1, True)


@dataclass(frozen=True)
class BackboneSpec:
    """One family of backbones: all that is known of it without importing torch."""

    options: type[ModelConfig]
    # module:class, a subclass of headsweep.models.backbone.Backbone, built of options, image size, channels and whether
    # the head reads a class token.
    class_path: str
    summary: str  # one line

    def __post_init__(self) -> None:
        options_of(ModelConfig, self.options, self.class_path)


BACKBONES: Registry[BackboneSpec] = Registry(
    "headsweep.backbones",
    "model.family",
    BackboneSpec,
    {
        "compact": BackboneSpec(
            CompactConfig, "headsweep.models.compact:CompactTransformer", "ViT-Lite, CVT and CCT (arXiv 2104.05704)"
        ),
        "timm": BackboneSpec(
            TimmConfig, "headsweep.models.timm_backbone:TimmBackbone", "Any backbone of timm, by its name there"
        ),
    },
)


def model_options() -> dict[str, type[ModelConfig]]:
    """Return the dataclass of each family's options."""
    return {family: backbone.options for family, backbone in BACKBONES.items()}
