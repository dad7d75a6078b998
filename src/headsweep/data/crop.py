"""Random resized crops: boxes, and resampling by two small matrices per image, bit for bit as Pillow.

Letters: b batch, c channels, s side of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from headsweep import rng
from headsweep.data.operations import as_levels

TRIES = 10  # as torchvision and timm, for crops and for erased boxes
_TAPS = 5  # an enlarging bicubic kernel never covers more pixels
_PRECISION = 22  # fractional bits of Pillow's coefficients (Resample.c, PRECISION_BITS)
_CPU_CHUNK = 64  # temporaries fit into the cache: 3.5 times faster than 256 images at 32 pixels
_SPLIT = 12  # bits of the lower part of a coefficient, see CropTable


class Sides(NamedTuple):
    """Sizes chosen from a sequence of tries."""

    height: Tensor  # (...) int64
    width: Tensor  # (...) int64
    found: Tensor  # (...) bool: whether any try fits


def first_fit(area: Tensor, ratio: Tensor, height: Tensor, width: Tensor) -> Sides:
    """Choose the first of several tries whose sides are within [1, height] x [1, width].

    Args:
        area: (..., tries) float64, pixels.
        ratio: (..., tries) float64, width over height.
        height: (..., 1) largest height.
        width: (..., 1) largest width.
    """
    tall, wide = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(-1, keepdim=True)
    pick = [sides.gather(-1, first).squeeze(-1).long() for sides in (tall, wide)]
    return Sides(pick[0], pick[1], fits.any(-1))


def between(uniform: Tensor, least: float, most: float) -> Tensor:
    """Scale numbers in [0, 1) to [least, most)."""
    return least + uniform * (most - least)


def offset(uniform: Tensor, room: Tensor) -> Tensor:
    """Return an integer in [0, room], uniformly distributed."""
    return (uniform * (room + 1)).long()


@dataclass(frozen=True)
class Crop:
    """The distribution of torchvision's RandomResizedCrop.

    Attributes:
        scale: (least, most) share of the area.
        ratio: (least, most) width over height; its logarithm is uniform.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]

    def boxes(self, key: int, indices: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
        """Draw a box for each image, on the host in float64, so that crops do not depend on the device.

        Args:
            key: of the augmentation stream of an epoch.
            indices: (b,) int64 sample indices.
            heights: (b,) int64, pixels.
            widths: (b,) int64, pixels.

        Returns:
            (b, 4) int64: top, left, height, width.
        """
        draws = rng.uniforms(rng.derive(key, "crop"), indices, 2 * TRIES + 2).double()
        area = (heights * widths)[:, None] * between(draws[:, :TRIES], *self.scale)
        logs = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = between(draws[:, TRIES : 2 * TRIES], *logs).exp()
        sides = first_fit(area, ratio, heights[:, None], widths[:, None])
        drawn = _placed(sides, offset(draws[:, -2], heights - sides.height), offset(draws[:, -1], widths - sides.width))
        return torch.where(sides.found[:, None], drawn, self._central(heights, widths))

    def _central(self, heights: Tensor, widths: Tensor) -> Tensor:
        """Return the largest centred box with an allowed ratio, as torchvision does when no try fits."""
        ratio = widths / heights
        height = torch.where(ratio < self.ratio[0], (widths / self.ratio[0]).round().long(), heights)
        width = torch.where(ratio > self.ratio[1], (heights * self.ratio[1]).round().long(), widths)
        sides = Sides(height, width, torch.ones_like(height, dtype=torch.bool))
        return _placed(sides, (heights - height) // 2, (widths - width) // 2)


def _placed(sides: Sides, top: Tensor, left: Tensor) -> Tensor:
    return torch.stack((top, left, sides.height, sides.width), 1)


class CropTable:
    """Pillow's bicubic coefficients (a = -0.5) for enlarging 1 .. s pixels to s, computed once.

    A crop's coefficients depend on its length alone. Pillow holds them as integers, with 22 fractional bits. Here
    each is high * 2^12 + low, two floats of at most 11 significant bits: products with 8-bit pixels and their sums
    are then exact in float32, in TF32 too and in whatever order, so that a sample's pixels are the same in every
    batch and on every device.

    Attributes:
        rows: (1 + s (s + 1) / 2, 2 s) float32: what a pixel gives to the high parts of s output pixels, then to the
            low parts. Row 0 is for pixels outside the crop; then come the pixel of length 1, the two of length 2, ...
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        lengths = torch.arange(size + 1, dtype=torch.float64)[:, None]
        centre = (torch.arange(size) + 0.5) * (lengths / size)
        start = (centre - 2 + 0.5).trunc().clamp(min=0)  # trunc, not floor: C's conversion to int
        taps = start[..., None] + torch.arange(_TAPS)
        weights = _bicubic(taps + 0.5 - centre[..., None]) * (taps < lengths[..., None])
        total = weights.sum(-1, keepdim=True)
        whole = torch.where(total == 0, 0.0, weights / total * 2**_PRECISION)
        whole = (whole + torch.where(whole < 0, -0.5, 0.5)).trunc()
        high = (whole / 2**_SPLIT).round()
        parts = torch.cat((high, whole - high * 2**_SPLIT), 1).float()
        # Taps beyond the end of a crop have coefficient 0 and fall into the extra columns.
        dense = torch.zeros(size + 1, 2 * size, size + _TAPS).scatter_(2, taps.long().repeat(1, 2, 1), parts)
        length, place = torch.tril_indices(size + 1, size, -1)
        self.rows = torch.cat((torch.zeros(1, 2 * size), dense[length, :, place])).to(device)

    def matrices(self, starts: Tensor, lengths: Tensor) -> Tensor:
        """Return the resampling matrices along one axis.

        Args:
            starts: (b,) int64, first pixel of each crop.
            lengths: (b,) int64, pixels.

        Returns:
            (b, s, 2 s) float32: from input pixels to the high and low parts of output pixels.
        """
        place, length = torch.arange(self.size, device=starts.device) - starts[:, None], lengths[:, None]
        inside = (place >= 0) & (place < length)
        rows = torch.where(inside, 1 + length * (length - 1) // 2 + place, 0)
        return self.rows.index_select(0, rows.flatten()).view(len(starts), self.size, -1)


def resample(images: Tensor, boxes: Tensor, table: CropTable) -> Tensor:
    """Crop boxes and enlarge them to the images' size: `crop(box).resize(size, BICUBIC)` of Pillow.

    Args:
        images: (b, c, s, s) uint8.
        boxes: (b, 4) int64, top, left, height, width, on the images' device.
        table: for s.

    Returns:
        (b, c, s, s) uint8.
    """
    if images.device.type == "cpu" and len(images) > _CPU_CHUNK:
        parts = zip(images.split(_CPU_CHUNK), boxes.split(_CPU_CHUNK), strict=True)
        return torch.cat([resample(part, part_boxes, table) for part, part_boxes in parts])
    top, left, height, width = boxes.unbind(1)
    across = _along_rows(images.float(), table.matrices(left, width))
    both = _along_rows(across.transpose(2, 3), table.matrices(top, height))
    return as_levels(both.transpose(2, 3).contiguous())


def _along_rows(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample integers (b, c, h, s) in float32 along the last axis, with Pillow's rounding."""
    b, c, h, s = images.shape
    high, low = torch.bmm(images.reshape(b, c * h, s), matrices).split(s, 2)
    # floor((high * 2^12 + low + half) / 2^22) within the integers that float32 represents exactly.
    half = 2.0 ** (_PRECISION - _SPLIT - 1)
    level = (low.mul(2.0**-_SPLIT).floor_() + high).add_(half).mul_(2.0 ** (_SPLIT - _PRECISION)).floor_()
    return level.clamp_(0, 255).view(b, c, h, s)


def _bicubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic kernel in Pillow's order of operations."""
    x = x.abs()
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
