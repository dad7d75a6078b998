"""Classification heads: N tokens to the logits of K branches. Each has a record in `headsweep.config.head`."""

from importlib import import_module
from typing import Any

from headsweep.config.head import HEADS as SPECS
from headsweep.heads.base import Head
from headsweep.heads.fitted import FittedHead


def _load(class_path: str) -> type[Head]:
    module, _, name = class_path.partition(":")
    return getattr(import_module(module), name)


# Those that are trained, and those that are fitted in one pass over the training tokens.
HEADS: dict[str, type[Head]] = {name: _load(it.class_path) for name, it in SPECS.items() if not it.is_fitted}
FITTED_HEADS: dict[str, type[Head]] = {name: _load(it.class_path) for name, it in SPECS.items() if it.is_fitted}


def build_head(name: str, *, width: int, num_classes: int, heads: int, tokens: int, **options: Any) -> Head:
    """Build the head of that name.

    Args:
        name: a key of HEADS or FITTED_HEADS.
        width: D, the width of a token.
        num_classes: C.
        heads: K, the number of branches.
        tokens: N, the number of patch tokens of an image of the size that the model is built for.
        **options: the head's own, e.g. `gram_dim` of `ga`.

    Raises:
        ValueError: there is no such head, or it does not accept these sizes or options.
    """
    known = HEADS | FITTED_HEADS
    if name not in known:
        raise ValueError(f"head={name}: unknown head; known: {', '.join(sorted(known))}")
    return known[name](width=width, num_classes=num_classes, heads=heads, tokens=tokens, **options)


__all__ = ["FITTED_HEADS", "HEADS", "FittedHead", "Head", "build_head"]
