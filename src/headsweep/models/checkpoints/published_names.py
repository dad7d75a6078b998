"""Names of parameters in the published codes: one table, read in both directions.

Two codes published CCT models: SeqAttention's (pre_norm or no_attention blocks, several heads) and the CCT authors'
(stream_norm blocks; CCT, CVT and ViT-Lite). Both have the same module tree, `tokenizer` and `classifier`, and name the
parts of a block differently. They hold a list of modules where headsweep stacks branches.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from headsweep.config import HEADS, Block
from headsweep.heads import Head
from headsweep.models.compact import CompactTransformer

HEAD_COUNTS = (1, 2, 4, 8)  # that have a published name
POSITIONS = "classifier.positional_emb"
UNUSED_CLASSIFIER = "classifier.fc"  # of the published models with several heads: built, but never called

# Module or parameter of headsweep -> published name.
_BACKBONE = {
    "positions": POSITIONS,
    "class_token": "classifier.class_emb",
    "norm": "classifier.norm",
}
_SEQATTENTION_BLOCK = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.0": "mlp.linear1",
    "mlp.3": "mlp.linear2",
}
_BLOCKS = {
    Block.pre_norm: _SEQATTENTION_BLOCK,
    Block.no_attention: _SEQATTENTION_BLOCK,
    Block.stream_norm: {
        "norm1": "pre_norm",
        "attention.qkv": "self_attn.qkv",
        "attention.proj": "self_attn.proj",
        "norm2": "norm1",
        "mlp.0": "linear1",
        "mlp.3": "linear2",
    },
}
_CLASS_ATTENTION = {
    "norm1": "norm1",
    "qkv": "attn.q.weight attn.k.weight attn.v.weight",  # three published tensors, concatenated in headsweep
    "proj": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "gamma_1": "gamma_1",
    "gamma_2": "gamma_2",
}
_GRAM_QUERY = {
    "query.contraction": "gram_contraction.*.1",
    "query.contraction_norm": "gram_contraction.*.2",
    "query.embedding": "gram_embedding.*.0",
    "query.embedding_norm": "gram_embedding.*.1",
}


def _in_each_branch(modules: str) -> dict[str, str]:
    """Return the names of class-attention blocks in the list of modules `modules`."""
    return {
        f"attention.{own}": " ".join(f"{modules}.*.{name}" for name in published.split())
        for own, published in _CLASS_ATTENTION.items()
    }


@dataclass(frozen=True)
class _PublishedHead:
    """How a published file names a head."""

    place: str  # the module that holds its parts
    parts: Mapping[str, str]  # module of headsweep -> published name; * is the number of the branch
    blocks: tuple[Block, ...]  # kinds of blocks that it was published on
    mark: str = ""  # prefix of names that only files of this head have; by default the place

    def is_in(self, names: Iterable[str]) -> bool:
        return any(name.startswith(self.mark or f"{self.place}.") for name in names)


_HEADS = {
    "cls": _PublishedHead("classifier", {"classifier": "fc"}, (Block.stream_norm,), mark="classifier.class_emb"),
    "seqpool": _PublishedHead(
        "classifier",
        {"pooling.score": "attention_pool", "classifier": "fc"},
        (Block.pre_norm, Block.stream_norm),
        mark="classifier.attention_pool.",
    ),
    "se": _PublishedHead(
        "classifier",
        {"pooling.fc1": "se_like_pool.se.0", "pooling.fc2": "se_like_pool.se.2", "classifier": "fc"},
        (Block.pre_norm,),
        mark="classifier.se_like_pool.",
    ),
    "at": _PublishedHead(
        "classifier.no_gram_attn_head",
        {"query": "fc.0", **_in_each_branch("attention"), "classifier": "final_fc.*"},
        (Block.pre_norm,),
    ),
    "sg": _PublishedHead(
        "classifier.simgram",
        {**_GRAM_QUERY, "classifier": "fc.*"},
        (Block.no_attention,),  # its file has a self-attention that returns its input (docs/fidelity.md)
    ),
    "ga": _PublishedHead(
        "classifier.gramian_attn_head",
        {**_GRAM_QUERY, **_in_each_branch("gram_attention"), "classifier": "fc.*"},
        (Block.pre_norm,),
    ),
    "seqattn": _PublishedHead(
        "classifier.seq_attn_head",
        {"query.score": "fc_in.*", **_in_each_branch("gram_attention"), "classifier": "final_fc.*"},
        (Block.pre_norm,),
    ),
}


def head_name(head: Head) -> str:
    """Return the name of the head in configurations; that of its class if it is in a plain file."""
    kind = type(head)
    path = f"{kind.__module__}:{kind.__name__}"
    return next((name for name, spec in HEADS.items() if spec.class_path == path), kind.__name__)


def was_published(head: str, heads: int, block: Block) -> bool:
    """Return whether a published code has that many of the head on such blocks."""
    return head in _HEADS and block in _HEADS[head].blocks and (heads == 1 or has_branches(head))


def has_branches(head: str) -> bool:
    """Return whether the published head has a list of classifiers rather than one."""
    return "*" in _HEADS[head].parts["classifier"]


def block_in(names: Mapping[str, object]) -> Block | None:
    """Return the kind of blocks in a published file, by their names and the head; None if it is not one."""
    held = head_in(names)
    for kind, parts in _BLOCKS.items():
        if f"classifier.blocks.0.{parts['attention.qkv']}.weight" in names:
            return Block.no_attention if held is not None and held[0] == "sg" else kind
    return None


def head_in(names: Mapping[str, object]) -> tuple[str, int] | None:
    """Return the head in a published file and its number of heads; None if no known head is in it."""
    for head, layout in _HEADS.items():
        if layout.is_in(names):
            return head, max(1, len(list(_matching(classifier_names(head), names))))
    return None


def classifier_names(head: str) -> str:
    """Return the published name of the classifier; * is the number of the branch."""
    return f"{_HEADS[head].place}.{_HEADS[head].parts['classifier']}"


def _matching(module: str, names: Mapping[str, object]) -> Iterator[str]:
    pattern = re.compile(re.escape(f"{module}.weight").replace(r"\*", r"\d+"))
    return (name for name in names if pattern.fullmatch(name))


def is_of_backbone(name: str) -> bool:
    """Return whether a name in a published file is of a parameter of the backbone."""
    return name.startswith(("tokenizer.", "classifier.blocks.", *_BACKBONE.values()))


def published_views(
    backbone: CompactTransformer, head: Head | None, block: Block, state: Mapping[str, Tensor]
) -> Iterator[tuple[str, str, Tensor]]:
    """Yield for each tensor of a published state dict its name there, its name here, and its view into `state`.

    Args:
        backbone: whose tensors are in `state`.
        head: likewise; a head that was published, or None.
        block: the kind of blocks whose names are used.
        state: a state dict of the model; writing to a view writes to it.
    """
    for own, published in _modules(backbone, head, block).items():
        for name, tensor in state.items():
            if name == own or name.startswith(f"{own}."):
                suffix = name.removeprefix(own)
                views = _of_branches(published, tensor) if name.startswith("head.") else [(published, tensor)]
                yield from ((published + suffix, name, view) for published, view in views)


def _modules(backbone: CompactTransformer, head: Head | None, block: Block) -> dict[str, str]:
    """Return module or parameter of headsweep -> published name, with blocks and layers numbered."""
    numbered = {f"backbone.{own}": published for own, published in _BACKBONE.items()}
    for i in range(len(backbone.tokenizer.layers)):
        numbered[f"backbone.tokenizer.layers.{i}.0"] = f"tokenizer.conv_layers.{i}.0"
    for i in range(len(backbone.blocks)):
        for own, published in _BLOCKS[block].items():
            numbered[f"backbone.blocks.{i}.{own}"] = f"classifier.blocks.{i}.{published}"
    if head is not None:
        layout = _HEADS[head_name(head)]
        for own, published in layout.parts.items():
            numbered[f"head.{own}"] = " ".join(f"{layout.place}.{name}" for name in published.split())
    return numbered


def _of_branches(published: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the stacked tensors by branch, and query, key and value separately."""
    for k, branch in enumerate(tensor):
        parts = published.replace("*", str(k)).split()
        for name, part in zip(parts, branch.chunk(len(parts)), strict=True):
            yield name, _as_convolution(part) if part.ndim == 3 else part


def _as_convolution(grouped: Tensor) -> Tensor:
    """View a grouped linear layer (groups, out, in) in the shape of a 1x1 convolution."""
    return grouped.flatten(0, 1)[:, :, None, None]
