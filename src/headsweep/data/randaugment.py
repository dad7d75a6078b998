"""RandAugment on batches with timm's semantics: each image draws its own operations and magnitudes.

What each image draws is decided on the host from its own random numbers; the batch is then grouped by operation, so
that only the images that drew an operation are computed, and the host never waits for the device.
Images are (b c h w) uint8 throughout; an operation's argument is (b 1 1 1) float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from headsweep import streams
from headsweep.data.operations import GEOMETRIC, NAMES, apply
from headsweep.data.sources import to_device
from headsweep.errors import ConfigError

_LARGEST = 10.0  # timm's scale of magnitudes
_UNIFORM_ABOVE = 100.0  # timm: a larger spread means uniform between 0 and the magnitude
_DRAWS = 6  # of an image in a layer: operation, applied, two for the magnitude, sign, interpolation


@dataclass(frozen=True)
class Policy:
    """What timm's spelling says, e.g. rand-m9-mstd0.5-inc1."""

    magnitude: float = _LARGEST
    spread: float = 0.0  # standard deviation of the magnitude
    layers: int = 2  # operations per image
    probability: float = 0.5  # of each of them
    increasing: bool = False  # do all operations become stronger with the magnitude?

    @staticmethod
    def parse(text: str) -> Policy:
        """Read timm's spelling; raises ConfigError naming the part that makes no sense."""
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
            raise ConfigError("augmentation.randaugment", text, f"{error}; want e.g. rand-m9-mstd0.5-inc1") from error
        if policy.magnitude > _LARGEST or policy.probability > 1:
            raise ConfigError("augmentation.randaugment", text, "want a magnitude m of at most 10 and p of at most 1")
        return policy


class Layer(NamedTuple):
    """One operation for each image that gets one, on the host, sorted by operation."""

    rows: Tensor  # (m,) int64, rows of the batch
    arguments: Tensor  # (m,) float32
    counts: list[int]  # of rows by group: 2 * operation + bicubic


class RandAugment:
    """A policy, ready to be applied."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __call__(self, images: Tensor, key: int, indices: Tensor) -> Tensor:
        """Change `images` in place.

        Args:
            images: (b c h w) uint8.
            key: of the augmentation stream of an epoch.
            indices: (b,) int64 sample indices, on the host.
        """
        for layer in self.plan(key, indices):
            rows, arguments = to_device(layer.rows, images.device), to_device(layer.arguments, images.device)
            groups = zip(rows.split(layer.counts), arguments.split(layer.counts), strict=True)
            for group, (members, values) in enumerate(groups):
                if len(members):
                    changed = apply(group // 2, images.index_select(0, members), values, bicubic=group % 2 == 1)
                    images.index_copy_(0, members, changed)
        return images

    def plan(self, key: int, indices: Tensor) -> Iterator[Layer]:
        """Draw what each layer does to each image."""
        policy = self.policy
        draws = streams.uniforms(streams.derive(key, "randaugment"), indices, policy.layers * _DRAWS).double()
        for layer in draws.view(len(indices), policy.layers, _DRAWS).unbind(1):
            operation = (layer[:, 0] * len(NAMES)).long()
            magnitude = self._magnitude(layer[:, 2], layer[:, 3])
            arguments = arguments_of(magnitude, layer[:, 4] > 0.5, policy.increasing)
            bicubic = (layer[:, 5] >= 0.5) & (operation >= GEOMETRIC)
            group = 2 * operation + bicubic
            rows = group.argsort(stable=True)
            rows = rows[(layer[:, 1] < policy.probability)[rows]]
            counts = group[rows].bincount(minlength=2 * len(NAMES))
            chosen = arguments[rows, operation[rows]]
            yield Layer(rows, chosen.float(), counts.tolist())

    def _magnitude(self, first: Tensor, second: Tensor) -> Tensor:
        policy = self.policy
        if policy.spread > _UNIFORM_ABOVE:
            return first * policy.magnitude
        normal = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()  # Box and Muller
        return (policy.magnitude + policy.spread * normal).clamp(0, _LARGEST)


def arguments_of(magnitude: Tensor, negative: Tensor, increasing: bool) -> Tensor:
    """What timm passes to all operations at each magnitude.

    Args:
        magnitude: (b,) float64 in [0, 10].
        negative: (b,) bool, whether a sign flips.
        increasing: whether every operation becomes stronger with the magnitude.

    Returns:
        (b, 15) float64 in the order of `operations.NAMES`: sines of angles, shear factors, shares of the side, bits,
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
    return torch.stack([arguments.get(name, level) for name in NAMES], 1)
