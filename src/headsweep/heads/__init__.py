"""Classification heads: how N tokens become the logits of K branches.

To add a head: one class here, one options class in `headsweep.config`, one YAML in `conf/head/`, its
formula and a row in `tests/heads/`.
"""

from typing import Any

from headsweep.heads.at import AtHead
from headsweep.heads.base import Head
from headsweep.heads.cait import CaitHead
from headsweep.heads.cls import ClsHead
from headsweep.heads.ga import GaHead
from headsweep.heads.gap import GapHead
from headsweep.heads.se import SeHead
from headsweep.heads.seqattn import SeqAttnHead
from headsweep.heads.seqpool import SeqPoolHead
from headsweep.heads.sg import SgHead

HEADS: dict[str, type[Head]] = {
    "gap": GapHead,
    "cls": ClsHead,
    "seqpool": SeqPoolHead,
    "se": SeHead,
    "cait": CaitHead,
    "at": AtHead,
    "sg": SgHead,
    "ga": GaHead,
    "seqattn": SeqAttnHead,
}


def build_head(name: str, *, width: int, num_classes: int, heads: int, tokens: int, **options: Any) -> Head:
    """The head of that name.

    Args:
        name: a key of HEADS.
        width: D, the width of a token.
        num_classes: C.
        heads: K, the number of branches.
        tokens: N, the number of patch tokens of an image of the size that the model is built for.
        **options: the head's own, e.g. `gram_dim` of `ga`.
    """
    if name not in HEADS:
        raise ValueError(f"head={name}: unknown head; known: {', '.join(sorted(HEADS))}")
    return HEADS[name](width=width, num_classes=num_classes, heads=heads, tokens=tokens, **options)


__all__ = ["HEADS", "Head", "build_head"]
