"""The published architectures under timm's `create_model`.

`cct_7_3x1_32` and its kin have CCT's own head (seqpool, K=1); `_sine` swaps the learnable positions for fixed ones.
`ga8_cct_7_3x1_32` has eight `ga` heads and `ga1_cct_7_3x1_32` one: the number is the true head count, whereas in the
SeqAttention authors' code every such name builds eight.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model, resolve_pretrained_cfg

from headsweep.config import ModelConfig, Positions
from headsweep.errors import UserError
from headsweep.heads import HEADS, build_head
from headsweep.models.cct import CCT
from headsweep.models.classifier import Classifier

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
HEAD_COUNTS = (1, 2, 4, 8)


def _cct(name: str, width: int, depth: int, attention_heads: int, mlp_ratio: float) -> ModelConfig:
    """The architecture behind a name like cct_<depth>_<kernel>x<layers>."""
    kernel, layers = map(int, name.rpartition("_")[2].split("x"))
    return ModelConfig(
        name=name,
        width=width,
        depth=depth,
        attention_heads=attention_heads,
        mlp_ratio=mlp_ratio,
        tokenizer_kernel=kernel,
        tokenizer_layers=layers,
        positions=Positions.learnable,
        dropout=0.0,
        attention_dropout=0.1,
        drop_path=0.1,
    )


# arXiv 2104.05704, Table 1 and the authors' code; the same numbers as conf/model/*.yaml (a test compares them).
ARCHITECTURES: dict[str, ModelConfig] = {
    model.name: model
    for model in (
        _cct("cct_2_3x2", 128, 2, 2, 1.0),
        _cct("cct_4_3x2", 128, 4, 2, 1.0),
        _cct("cct_6_3x1", 256, 6, 4, 2.0),
        _cct("cct_6_3x2", 256, 6, 4, 2.0),
        _cct("cct_7_3x1", 256, 7, 4, 2.0),
        _cct("cct_7_3x2", 256, 7, 4, 2.0),
        _cct("cct_7_7x2", 256, 7, 4, 2.0),
        _cct("cct_14_7x2", 384, 14, 6, 3.0),
    )
}


@dataclass(frozen=True)
class Entry:
    """What a name stands for; `heads` is fixed by names that say a number."""

    model: ModelConfig
    image_size: int
    num_classes: int
    head: str = "seqpool"
    heads: int | None = None


def _entries() -> dict[str, Entry]:
    published = {f"{name}_32": (name, 32, 10) for name in ARCHITECTURES if "_3x" in name}
    published["cct_7_7x2_224"] = ("cct_7_7x2", 224, 102)
    published["cct_14_7x2_224"] = ("cct_14_7x2", 224, 1000)
    published["cct_14_7x2_384"] = ("cct_14_7x2", 384, 1000)
    entries = {}
    for name, (architecture, image_size, num_classes) in published.items():
        model = ARCHITECTURES[architecture]
        entries[name] = Entry(model, image_size, num_classes)
        sine = dataclasses.replace(model, positions=Positions.sine)
        entries[f"{name}_sine"] = Entry(sine, image_size, num_classes)
    for head in HEADS:
        for heads in HEAD_COUNTS:
            entries[f"{head}{heads}_cct_7_3x1_32"] = Entry(ARCHITECTURES["cct_7_3x1"], 32, 10, head, heads)
    return entries


ENTRIES = _entries()


def _input(entry: Entry) -> dict[str, Any]:
    """Timm's description of what a model was made for."""
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


def create(
    name: str,
    *,
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | None = None,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    in_chans: int = 3,
    heads: int | None = None,
    positions: str | Positions | None = None,
    drop_rate: float | None = None,
    attn_drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    **options: Any,
) -> Classifier:
    """The model of that name; parameters are drawn from torch's global generator, as timm's are.

    Args:
        name: a key of ENTRIES.
        pretrained: not available, since no weights are hosted; `cache_dir` is accepted and has nothing to hold.
        pretrained_cfg: replaces timm's description of the input, `pretrained_cfg_overlay` parts of it.
        num_classes: C; the published number by default.
        img_size: side of the images in pixels, or (rows, columns).
        in_chans: channels of the images.
        heads: K, where the name does not say it.
        positions: learnable, sine or none.
        drop_rate: dropout on tokens and projections; the published rate by default, as the next two.
        attn_drop_rate: dropout on attention weights.
        drop_path_rate: stochastic depth of the last block.
        **options: the head's own, e.g. `gram_dim` of `ga`.
    """
    if pretrained:
        raise UserError(f"{name}: no pretrained weights are hosted; pass checkpoint_path=FILE to load your own")
    entry = ENTRIES[name]
    if entry.heads is not None and heads not in (None, entry.heads):
        raise UserError(f"{name}: heads={heads} contradicts the name, which says {entry.heads}")
    changes: dict[str, Any] = {
        "positions": None if positions is None else Positions(positions),
        "dropout": drop_rate,
        "attention_dropout": attn_drop_rate,
        "drop_path": drop_path_rate,
    }
    model = dataclasses.replace(entry.model, **{k: v for k, v in changes.items() if v is not None})
    head = build_head(
        entry.head,
        width=model.width,
        num_classes=entry.num_classes if num_classes is None else num_classes,
        heads=next(count for count in (heads, entry.heads, 1) if count is not None),
        **options,
    )
    described = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay).to_dict()
    image_size = entry.image_size if img_size is None else img_size
    return Classifier(CCT(model, image_size, in_chans), head, described)


def _entrypoint(name: str) -> Callable[..., Classifier]:
    """A function of that name, as timm's registry wants it."""

    def build(pretrained: bool = False, **keywords: Any) -> Classifier:
        return create(name, pretrained=pretrained, **keywords)

    build.__name__ = build.__qualname__ = name
    return build


for _name in ENTRIES:
    register_model(_entrypoint(_name))
