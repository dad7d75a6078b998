"""Classification heads: N tokens to the logits of K branches. Each has a record in `headsweep.config.head`."""

from importlib import import_module
from typing import Any

from headsweep.config.head import HEADS as SPECS
from headsweep.heads.base import Head


def _load(class_path: str) -> type[Head]:
    module, _, name = class_path.partition(":")
    return getattr(import_module(module), name)


HEADS: dict[str, type[Head]] = {name: _load(spec.class_path) for name, spec in SPECS.items()}


def build_head(name: str, *, width: int, num_classes: int, heads: int, tokens: int, **options: Any) -> Head:
    """Build the head of that name.

    Args:
        name: a key of HEADS.
        width: D, the width of a token.
        num_classes: C.
        heads: K, the number of branches.
        tokens: N, the number of patch tokens of an image of the size that the model is built for.
        **options: the head's own, e.g. `gram_dim` of `ga`.

    Raises:
        ValueError: there is no such head, or it does not accept these sizes or options.
    """
    if name not in HEADS:
        raise ValueError(f"head={name}: unknown head; known: {', '.join(sorted(HEADS))}")
    return HEADS[name](width=width, num_classes=num_classes, heads=heads, tokens=tokens, **options)


__all__ = ["HEADS", "Head", "build_head"]
