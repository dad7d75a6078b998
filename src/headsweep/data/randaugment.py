"""RandAugment on batches with timm's semantics: each image draws its own operations and magnitudes.

Each image draws on the host from its own random numbers. The batch is then grouped by operation, so that an operation
is computed only for the images that drew it, without a device sync; `static_shapes` needs no groups.
Letters: b batch, n images drawn for, l layers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from headsweep import rng
from headsweep.data.operations import DEGENERATES, GEOMETRIC, GEOMETRY, NAMES, TABLES, affines, blend, move
from headsweep.data.sources import to_device
from headsweep.errors import ConfigError

_LARGEST = 10.0  # timm's scale of magnitudes
_UNIFORM_ABOVE = 100.0  # timm: with a larger spread, uniform between 0 and the magnitude
# A layer has two groups of each kind, the second for bicubic moves. Moves along the same axes are one kind.
_KINDS = (*TABLES, *DEGENERATES, "x", "y", "xy")
NOTHING = len(NAMES)  # the operation of images without one
_KIND_OF = torch.tensor([_KINDS.index(GEOMETRY.get(name, name)) for name in NAMES] + [len(_KINDS)])
_NOTHING = 2 * len(_KINDS)  # the group of images without an operation, and the one after it
_DRAWS = 6  # of an image in a layer: operation, applied, two for the magnitude, sign, interpolation


@dataclass(frozen=True)
class Policy:
    """A policy in timm's notation, e.g. rand-m9-mstd0.5-inc1."""

    magnitude: float = _LARGEST
    spread: float = 0.0  # standard deviation of the magnitude
    layers: int = 2  # operations per image
    probability: float = 0.5  # of each of them
    increasing: bool = False  # whether all operations become stronger with the magnitude

    @staticmethod
    def parse(text: str) -> Policy:
        """Parse timm's notation. Raises ConfigError that names the invalid part."""
        found = dict(re.findall(r"-(mstd|inc|m|n|p)([0-9.]+)", text))
        try:
            policy = Policy(
                magnitude=float(found.get("m", _LARGEST)),
                spread=float(found.get("mstd", 0)),
                layers=int(found.get("n", 2)),
                probability=float(found.get("p", 0.5)),
                increasing=found.get("inc") == "1",
            )
        except ValueError as error:
            raise ConfigError(
                "augmentation.randaugment", text, f"{error}; expected e.g. rand-m9-mstd0.5-inc1"
            ) from error
        if policy.magnitude > _LARGEST or policy.probability > 1:
            raise ConfigError("augmentation.randaugment", text, "expected a magnitude m <= 10 and p <= 1")
        return policy


class Operations(NamedTuple):
    """Operations of n images in l layers, on the host."""

    operations: Tensor  # (n l) int64, indices into NAMES, or NOTHING
    arguments: Tensor  # (n l) float32
    bicubic: Tensor  # (n l) bool, for geometric operations
    affine: Tensor  # (n l 8) float32, see `operations.affines`

    @staticmethod
    def none(n: int) -> Operations:
        """Return draws without any layer."""
        nothing = torch.zeros(n, 0)
        return Operations(nothing.long(), nothing, nothing.bool(), torch.zeros(n, 0, 8))


class RandAugment:
    """Draws from a policy for square images."""

    def __init__(self, policy: Policy, size: int) -> None:
        self.policy, self.size = policy, size

    def draw(self, key: int, indices: Tensor) -> Operations:
        """Draw the operation of each layer for each image.

        Args:
            key: of the augmentation stream of an epoch.
            indices: (n,) int64 sample indices.
        """
        policy = self.policy
        draws = rng.uniforms(rng.derive(key, "randaugment"), indices, policy.layers * _DRAWS).double()
        operation, applied, first, second, sign, interpolation = draws.view(-1, policy.layers, _DRAWS).unbind(2)
        operations = (operation * len(NAMES)).long()
        arguments = arguments_of(self._magnitude(first, second), sign > 0.5, policy.increasing)
        chosen = arguments.gather(2, operations[..., None]).squeeze(2).float()
        operations.masked_fill_(applied >= policy.probability, NOTHING)
        return Operations(operations, chosen, interpolation >= 0.5, affines(operations, chosen, self.size, self.size))

    def _magnitude(self, first: Tensor, second: Tensor) -> Tensor:
        policy = self.policy
        if policy.spread > _UNIFORM_ABOVE:
            return first * policy.magnitude
        normal = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()  # Box and Muller
        return (policy.magnitude + policy.spread * normal).clamp(0, _LARGEST)


def arguments_of(magnitude: Tensor, negative: Tensor, increasing: bool) -> Tensor:
    """Return the arguments that timm passes to all operations at each magnitude.

    Args:
        magnitude: (...) float64 in [0, 10].
        negative: (...) bool, whether a sign flips.
        increasing: whether every operation becomes stronger with the magnitude.

    Returns:
        (..., 15) float64 in the order of `operations.NAMES`: sines of angles, shear factors, shares of the side, bits,
        thresholds, levels and blending factors.
    """
    level = magnitude / _LARGEST
    signed = torch.where(negative, -level, level)
    bits, threshold = (level * 4).trunc(), (level * 256).trunc().clamp(max=256)
    if increasing:
        bits, threshold = 4 - bits, 256 - threshold
        factor = (1.0 + signed * 0.9).clamp(min=0.1)
    else:
        factor = level * 1.8 + 0.1
    arguments = {
        "Posterize": bits,
        "Solarize": threshold,
        "SolarizeAdd": (level * 110).trunc().clamp(max=128),
        **dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), factor),
        "Rotate": (signed * math.radians(30)).sin(),
        **dict.fromkeys(("ShearX", "ShearY"), signed * 0.3),
        **dict.fromkeys(("TranslateX", "TranslateY"), signed * 0.45),
    }
    return torch.stack([arguments.get(name, level) for name in NAMES], -1)


def randaugment(images: Tensor, drawn: Operations) -> Tensor:
    """Apply all layers to (b c h w) uint8, in place, group by group; moves along the same axes are one group."""
    for layer in zip(*(values.unbind(1) for values in drawn), strict=True):
        _apply(images, *layer)
    return images


def _apply(images: Tensor, operations: Tensor, arguments: Tensor, bicubic: Tensor, affine: Tensor) -> None:
    groups = 2 * _KIND_OF[operations] + (bicubic & (operations >= GEOMETRIC))
    order, counts = groups.argsort(stable=True), groups.bincount(minlength=_NOTHING).tolist()[:_NOTHING]
    order = order[: sum(counts)]
    details = (to_device(values, images.device).split(counts) for values in (order, arguments[order], affine[order]))
    parts = enumerate(zip(*details, strict=True))
    changed = [_changed(group, images.index_select(0, rows), *its) for group, (rows, *its) in parts if len(rows)]
    own = images.unbind()
    # By row: index_copy takes ten times as long on a CPU.
    for row, image in zip(order.tolist(), chain.from_iterable(changed), strict=True):
        own[row].copy_(image)


def _changed(group: int, images: Tensor, arguments: Tensor, affine: Tensor) -> Tensor:
    kind, argument = _KINDS[group // 2], arguments[:, None, None, None]
    if kind in TABLES:
        return TABLES[kind](images, images, argument)
    if kind in DEGENERATES:
        return blend(DEGENERATES[kind](images), images, argument)
    return move(images, affine, kind, bicubic=group % 2 == 1)
