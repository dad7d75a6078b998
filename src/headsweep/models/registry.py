"""The published architectures under timm's `create_model`.

Names like `cct_7_3x1_32` have CCT's own head (seqpool, K=1), `vit_*` a class token, and `cvt_*` ViT-Lite's patches
under CCT's head; `_sine` replaces the learnable positions by fixed ones.
`ga8_cct_7_3x1_32` has eight `ga` heads and `ga1_cct_7_3x1_32` one: the number is the true head count, whereas in the
SeqAttention authors' code every such name builds eight.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import nn

from headsweep.config import Block, CompactConfig, Positions, Tokenizer
from headsweep.errors import UserError
from headsweep.heads import HEADS, build_head
from headsweep.models.argument_checks import check_feature_indices, check_image_size, check_integer, check_rate
from headsweep.models.checkpoints.published_names import HEAD_COUNTS
from headsweep.models.classifier import Classifier
from headsweep.models.compact.transformer import CompactTransformer, check_size

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def _compact(
    name: str, tokenizer: Tokenizer, kernel: int, layers: int, block: Block = Block.stream_norm
) -> CompactConfig:
    """Return the architecture of a name like cct_<depth>_... or vit_<depth>_<patch>."""
    depth = int(name.split("_")[1])
    width, attention_heads, mlp_ratio = SIZES[depth]
    return CompactConfig(
        family="compact",
        name=name,
        checkpoint=None,
        checkpoint_digest=None,
        width=width,
        depth=depth,
        attention_heads=attention_heads,
        mlp_ratio=mlp_ratio,
        tokenizer=tokenizer,
        tokenizer_kernel=kernel,
        tokenizer_layers=layers,
        block=block,
        positions=Positions.learnable,
        dropout=0.0,
        attention_dropout=0.1,
        drop_path=0.1,
    )


# arXiv 2104.05704, Table 1 and the authors' code: depth -> width, attention heads, MLP ratio.
SIZES = {2: (128, 2, 1.0), 4: (128, 2, 1.0), 6: (256, 4, 2.0), 7: (256, 4, 2.0), 14: (384, 6, 3.0)}
# The same numbers as conf/model/*.yaml (a test compares them).
ARCHITECTURES: dict[str, CompactConfig] = {
    model.name: model
    for model in (
        *(_compact(f"vit_{depth}_4", Tokenizer.patch, 4, 1) for depth in (2, 4, 6, 7)),
        _compact("cct_2_3x2", Tokenizer.convolution, 3, 2),
        _compact("cct_4_3x2", Tokenizer.convolution, 3, 2),
        _compact("cct_6_3x1", Tokenizer.convolution, 3, 1),
        _compact("cct_6_3x2", Tokenizer.convolution, 3, 2),
        _compact("cct_7_3x1", Tokenizer.convolution, 3, 1, Block.pre_norm),  # the SeqAttention paper's backbone
        _compact("cct_7_3x2", Tokenizer.convolution, 3, 2),
        _compact("cct_7_7x2", Tokenizer.convolution, 7, 2),
        _compact("cct_14_7x2", Tokenizer.convolution, 7, 2),
    )
}


@dataclass(frozen=True)
class Entry:
    """What a timm name stands for; names with a number fix `heads`."""

    model: CompactConfig
    image_size: int
    num_classes: int
    head: str
    heads: int | None = None


def _entries() -> dict[str, Entry]:
    """Return published name -> entry; CVT is ViT-Lite's backbone with sequence pooling."""
    published = {f"{name}_32": (name, 32, 10, "seqpool") for name in ARCHITECTURES if "_3x" in name}
    published |= {f"vit_{depth}_4_32": (f"vit_{depth}_4", 32, 10, "cls") for depth in (2, 4, 6, 7)}
    published |= {f"cvt_{depth}_4_32": (f"vit_{depth}_4", 32, 10, "seqpool") for depth in (2, 4, 6, 7)}
    published["cct_7_7x2_224"] = ("cct_7_7x2", 224, 102, "seqpool")
    published["cct_14_7x2_224"] = ("cct_14_7x2", 224, 1000, "seqpool")
    published["cct_14_7x2_384"] = ("cct_14_7x2", 384, 1000, "seqpool")
    entries = {}
    for name, (architecture, image_size, num_classes, head) in published.items():
        model = ARCHITECTURES[architecture]
        entries[name] = Entry(model, image_size, num_classes, head)
        sine = dataclasses.replace(model, positions=Positions.sine)
        entries[f"{name}_sine"] = Entry(sine, image_size, num_classes, head)
    for head in HEADS:
        for heads in HEAD_COUNTS:
            entries[f"{head}{heads}_cct_7_3x1_32"] = Entry(ARCHITECTURES["cct_7_3x1"], 32, 10, head, heads)
    return entries


ENTRIES = _entries()


def _input(entry: Entry) -> dict[str, Any]:
    """Return timm's description of a model's input and weights."""
    small = entry.image_size == 32
    return {
        "input_size": (3, entry.image_size, entry.image_size),
        "num_classes": entry.num_classes,
        "mean": CIFAR10_MEAN if small else IMAGENET_DEFAULT_MEAN,
        "std": CIFAR10_STD if small else IMAGENET_DEFAULT_STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0 if small else 0.9,
        "pool_size": None,
        "fixed_input_size": True,
        "first_conv": "backbone.tokenizer.layers.0.0",
        "classifier": "head.classifier",
    }


default_cfgs = generate_default_cfgs({name: _input(entry) for name, entry in ENTRIES.items()})


def create(name: str, *, pretrained: bool = False, out_indices: Any = None, **keywords: Any) -> nn.Module:
    """Build the model of that name; parameters are drawn from torch's global generator, as timm's are.

    Args:
        name: a key of ENTRIES.
        pretrained: load the weights that `pretrained_cfg_overlay={"file": FILE}` names; none are hosted.
        out_indices: with `features_only`, which blocks' features: the last so many (3 by default), or their numbers.
        **keywords: those of `build`, of its head (`gram_dim` of `ga`), and timm's own, e.g. `features_only`.

    Raises:
        UserError: a keyword or its value cannot be used, or there are no weights to load.
    """
    if pretrained and not _weights(name, keywords):
        raise UserError(
            f"{name}: expected pretrained=False, as no weights are hosted; use checkpoint_path=FILE for your own"
        )
    depth = ENTRIES[name].model.depth
    if out_indices is not None:
        check_feature_indices("out_indices", out_indices, depth)
    last = min(3, depth)
    features = {"feature_cls": "getter", "out_indices": last if out_indices is None else out_indices}
    return build_model_with_cfg(functools.partial(build, name), name, pretrained, feature_cfg=features, **keywords)


def _weights(name: str, keywords: dict[str, Any]) -> Any:
    described = resolve_pretrained_cfg(name, keywords.get("pretrained_cfg"), keywords.get("pretrained_cfg_overlay"))
    return described.has_weights or described.state_dict


def build(
    name: str,
    *,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int = 3,
    heads: int | None = None,
    positions: str | Positions | None = None,
    block: str | Block | None = None,
    drop_rate: float | None = None,
    attn_drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    global_pool: str | None = None,
    **options: Any,
) -> Classifier:
    """Build the model of that name, without timm's description of it.

    Args:
        name: a key of ENTRIES.
        num_classes: C; the published number by default, 0 for none.
        img_size: side of the images in pixels, or (rows, columns).
        in_chans: channels of the images.
        heads: K, where the name does not say it.
        positions: learnable, sine or none.
        block: pre_norm or stream_norm; the code that published the name decides by default.
        drop_rate: dropout on tokens and projections; the published rate by default, as the next two.
        attn_drop_rate: dropout on attention weights.
        drop_path_rate: stochastic depth of the last block.
        global_pool: "" with `num_classes=0` leaves the head out; nothing else, since the head pools.
        **options: the head's own.
    """
    entry = ENTRIES[name]
    _check_options(name, entry.head, options)
    _check_values(num_classes=num_classes, img_size=img_size, in_chans=in_chans, heads=heads)
    _check_values(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
    rates = {"dropout": drop_rate, "attention_dropout": attn_drop_rate, "drop_path": drop_path_rate}
    model = _changed(name, entry.model, positions, block, rates)
    size = to_2tuple(entry.image_size if img_size is None else img_size)
    check_size(model, size)
    backbone = CompactTransformer(model, size, in_chans, HEADS[entry.head].class_token)
    classes = entry.num_classes if num_classes is None else num_classes
    count = _heads(name, entry, heads)
    sizes = {"width": model.width, "tokens": backbone.tokens, "num_classes": classes, "heads": count}
    try:
        classifier = Classifier(backbone, build_head(entry.head, **sizes, **options))
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    if global_pool is not None:
        classifier.reset_classifier(classes, global_pool)
    return classifier


def _changed(
    name: str, model: CompactConfig, positions: Any, block: Any, rates: Mapping[str, float | None]
) -> CompactConfig:
    """Return the architecture with the options that are not None."""
    words = {
        "positions": _one_of(Positions, name, "positions", positions),
        "block": _one_of(Block, name, "block", block),
    }
    given: dict[str, Any] = {key: value for key, value in {**words, **rates}.items() if value is not None}
    return dataclasses.replace(model, **given)


def _heads(name: str, entry: Entry, heads: int | None) -> int:
    """Return K: of the name, else as given, else 1."""
    if entry.heads is not None and heads not in (None, entry.heads):
        raise UserError(f"{name}: heads={heads}: expected {entry.heads}, as in the name")
    return next(count for count in (heads, entry.heads, 1) if count is not None)


def _keywords(function: Callable[..., Any]) -> set[str]:
    """Return the names of a function's keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "num_classes": functools.partial(check_integer, least=0),
    "img_size": check_image_size,
    "in_chans": functools.partial(check_integer, least=1),
    "heads": functools.partial(check_integer, least=1),
    "drop_rate": check_rate,
    "attn_drop_rate": check_rate,
    "drop_path_rate": check_rate,
}


def _check_values(**given: Any) -> None:
    """Raise UserError for a given value that has no effect."""
    for key, value in given.items():
        if value is not None:
            _CHECKS[key](key, value)


def _check_options(name: str, head: str, options: dict[str, Any]) -> None:
    """Raise UserError for a keyword that the head does not have, or a value that must be an integer and is not."""
    own = _keywords(HEADS[head].__init__)
    unknown = sorted(options.keys() - own)
    if unknown:
        known = ", ".join(sorted(_keywords(build) | own))
        raise UserError(f"{name}: unknown keyword {', '.join(unknown)}; head {head} and its backbone have {known}")
    parameters = inspect.signature(HEADS[head].__init__).parameters
    for key, value in options.items():
        if parameters[key].annotation is int:
            check_integer(key, value, 1)


def _one_of(kind: type[Enum], name: str, key: str, value: str | Enum | None) -> Enum | None:
    """Return the member of an enum by its value."""
    try:
        return None if value is None else kind(value)
    except ValueError as error:
        known = " or ".join(str(member.value) for member in kind)
        raise UserError(f"{name}: {key}={value}: expected {known}") from error


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """Return a function of that name, as timm's registry requires."""

    def entrypoint(pretrained: bool = False, **keywords: Any) -> nn.Module:
        return create(name, pretrained=pretrained, **keywords)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    return entrypoint


for _name in ENTRIES:
    register_model(_entrypoint(_name))
