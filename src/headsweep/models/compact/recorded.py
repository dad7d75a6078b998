"""The buffer in which a state dict records what its names and shapes do not determine."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from headsweep.config import Block, CompactConfig, Positions

ARCHITECTURE = "backbone.architecture"  # in the state dict of a `Classifier`


def describe(model: CompactConfig, grid: tuple[int, int]) -> Int[Tensor, " 4"]:
    """Encode kind of blocks, kind of positions and token grid."""
    kinds = [list(Block).index(model.block), list(Positions).index(model.positions)]
    return torch.tensor([*kinds, *grid], dtype=torch.int32, device="cpu")


def recorded_architecture(given: Mapping[str, Tensor]) -> tuple[Block, Positions, tuple[int, int]] | None:
    """Return kind of blocks, kind of positions and token grid of a file of headsweep; None if not recorded."""
    code = given.get(ARCHITECTURE)
    if code is None or code.shape != (4,) or code.is_floating_point() or code.is_meta:
        return None
    block, positions, rows, columns = code.tolist()
    if not (0 <= block < len(Block) and 0 <= positions < len(Positions)):
        return None
    return list(Block)[block], list(Positions)[positions], (rows, columns)
