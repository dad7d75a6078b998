"""Fill a model's state with the tensors of a file, converting shapes where that is defined.

Legend: s and t positions of the file and of the model, prefix ones included, d width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headsweep.models.backbone import Backbone
from headsweep.models.checkpoints.state import CheckpointError, listed
from headsweep.models.compact import CompactTransformer

# For every tensor that a file should hold: its name there, its name here, its view into the state.
Views = Iterator[tuple[str, str, Tensor]]


@dataclass
class Conversion:
    """Fits given tensors into the model's, converting shapes where that is defined."""

    backbone: Backbone
    classes_axis: int
    grid: tuple[int, int] | None  # of the file's tokens; square if unknown
    notes: list[str]

    def put(self, own: str, given: Tensor, view: Tensor) -> bool:
        """Fill the view; return False if the given tensor does not fit."""
        if given.shape == view.shape and not self._is_reshaped(own):
            view.copy_(given)
        elif own == "backbone.positions" and given.ndim == 3 and given.shape[2] == view.shape[2]:
            return self._resize(given, view)
        elif own.startswith("head.classifier.") and self._differs_in_classes(given, view):
            counts = given.shape[self.classes_axis], view.shape[self.classes_axis]
            self._note(
                f"the classifiers are newly initialised: {counts[0]} classes in the file, {counts[1]} in the model"
            )
        else:
            return False
        return True

    def _is_reshaped(self, own: str) -> bool:
        """Return whether the number of positions agrees but not rows and columns."""
        known = isinstance(self.backbone, CompactTransformer) and self.grid is not None
        return own == "backbone.positions" and known and self.grid != self.backbone.grid

    def _resize(self, given: Tensor, view: Tensor) -> bool:
        assert isinstance(self.backbone, CompactTransformer), "only it has positions"
        rows, columns = self.backbone.grid
        count = max(0, given.shape[1] - self.backbone.prefix)
        before = self.grid or (math.isqrt(count), math.isqrt(count))
        if before[0] * before[1] != count or not count:
            return False
        view.copy_(resize_positions(given.float(), self.backbone.prefix, before, (rows, columns)))
        self._note(f"positions resized bilinearly from {before[0]}x{before[1]} tokens to {rows}x{columns}")
        return True

    def _differs_in_classes(self, given: Tensor, view: Tensor) -> bool:
        def others(tensor: Tensor) -> list[int]:
            return [size for axis, size in enumerate(tensor.shape) if axis != self.classes_axis]

        return given.ndim == view.ndim and others(given) == others(view)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def resize_positions(
    positions: Float[Tensor, "1 s d"], prefix: int, before: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "1 t d"]:
    """Resize positions to another grid bilinearly, as the CCT authors' code does; prefix positions stay."""
    kept, patches = positions[:, :prefix], positions[:, prefix:]
    image = patches.unflatten(1, before).permute(0, 3, 1, 2)
    return torch.cat([kept, F.interpolate(image, grid, mode="bilinear").flatten(2).transpose(1, 2)], 1)


def fill(views: Views, rest: dict[str, Tensor], conversion: Conversion) -> None:
    """Fill the state through its views.

    Raises:
        CheckpointError: a tensor is absent, does not fit, or has no place.
    """
    missing, misfits = [], []
    for name, own, view in views:
        given = rest.pop(name, None)
        if given is None:
            missing.append(name)
        elif not conversion.put(own, given, view):
            misfits.append(f"{name} is {tuple(given.shape)} and the model's {tuple(view.shape)}")
    complaints = [
        ("the file lacks", missing),
        ("the model has no place for", list(rest)),
        ("the file does not fit:", misfits),
    ]
    problems = [f"{complaint} {listed(names)}" for complaint, names in complaints if names]
    if problems:
        raise CheckpointError("; ".join(problems))
