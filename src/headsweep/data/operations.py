"""The fifteen operations of RandAugment, each as Pillow computes it, in three families that two implementations share.

Letters: b images, c channels (1 or 3), h w size, n levels. Images are (b c h w) uint8, arguments (b 1 1 1) float32.
`randaugment` computes one operation on the images that drew it; `static_shapes` computes every family on all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_FILL = 128  # timm's colour outside the image, in geometric operations
_MIDDLE = 128  # SolarizeAdd brightens the levels below this


def as_levels(values: Tensor) -> Tensor:
    """float32 in [0, 256) to uint8, truncated; via int16 on a CPU, which takes a third of the time."""
    return (values.to(torch.int16) if values.device.type == "cpu" else values).to(torch.uint8)


# Tables map levels by (levels, images, argument): `levels` broadcasts to (b c h w) or, to get the whole table of each
# channel, is (1 1 256 1); statistics of the images are computed from `images`.


def _auto_contrast(levels: Tensor, images: Tensor, _: Tensor) -> Tensor:
    own = images.flatten(2)
    least, most = own.amin(2).float()[..., None, None], own.amax(2).float()[..., None, None]
    flat = most == least  # such a channel is unchanged
    least, most = least.masked_fill(flat, 0), most.masked_fill(flat, 255)
    # The quotient of integers below 2^16: floor is exact.
    return as_levels((levels - least).mul_(255).div_(most - least))


def _equalize(levels: Tensor, images: Tensor, _: Tensor) -> Tensor:
    own = images.flatten(2)
    cumulative = (_counted if images.device.type == "cpu" else _searched)(own)
    below = F.pad(cumulative[..., :-1], (1, 0))
    brightest = own.shape[2] - below.gather(2, own.amax(2, keepdim=True).long())
    step = (own.shape[2] - brightest) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    # An image with one level, or too few pixels, is unchanged.
    table = torch.where(step > 0, table, torch.arange(256, device=images.device)).to(torch.uint8)
    places = levels.flatten(2).long().expand(*own.shape[:2], -1)
    return table.gather(2, places).view(*own.shape[:2], *levels.shape[2:])


def _counted(own: Tensor) -> Tensor:
    """(b c hw) uint8 to (b c 256) int64: number of pixels with at most each level."""
    counts = torch.zeros(*own.shape[:2], 256, dtype=torch.int64, device=own.device)
    counts.scatter_add_(2, own.long(), torch.ones((), dtype=torch.int64, device=own.device).expand(own.shape))
    return counts.cumsum(2)


def _searched(own: Tensor) -> Tensor:
    """The same without scatter_add, which synchronises with the host on a GPU in deterministic mode."""
    levels = torch.arange(256, dtype=torch.uint8, device=own.device).expand(*own.shape[:2], 256).contiguous()
    return torch.searchsorted(own.sort(2).values, levels, right=True)


def _invert(levels: Tensor, _: Tensor, __: Tensor) -> Tensor:
    return 255 - levels


def _posterize(levels: Tensor, _: Tensor, bits: Tensor) -> Tensor:
    dropped = torch.ones_like(bits, dtype=torch.int32) << (8 - bits).int()
    return levels & (256 - dropped).to(torch.uint8)


def _solarize(levels: Tensor, _: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(levels < threshold.to(torch.int16), levels, 255 - levels)


def _solarize_add(levels: Tensor, _: Tensor, add: Tensor) -> Tensor:
    # add is at most 110: below the middle the sum stays below 256.
    return torch.where(levels < _MIDDLE, levels + add.to(torch.uint8), levels)


# A blend moves images towards or away from a degenerate image: float32 that broadcasts to (b c h w).


def blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Pillow's Image.blend: truncated, not rounded. A factor of 1 changes nothing, as all values are integers."""
    return as_levels(images.float().sub_(degenerate).mul_(factor).add_(degenerate).clamp_(0, 255))


def grey(images: Tensor) -> Tensor:
    """Return Pillow's luma, (b 1 h w) float32; exact, as it sums integers below 2^24."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.float().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768).mul_(2.0**-16).floor_()


def _mean_grey(images: Tensor) -> Tensor:
    pixels = images.shape[2] * images.shape[3]
    total = grey(images).long().sum((1, 2, 3), keepdim=True)
    return ((2 * total + pixels) // (2 * pixels)).float()


def _black(images: Tensor) -> Tensor:
    return torch.zeros((), device=images.device)


def _smooth(images: Tensor) -> Tensor:
    """Smooth an image; Pillow does not change its border."""
    pixels = images.float()
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * pixels[:, :, 1:-1, 1:-1]
    pixels[:, :, 1:-1, 1:-1] = (total / 13 + 0.5).floor_()
    return pixels


# Geometry: source position of each output pixel, in pixels from the upper left corner.


def affines(operations: Tensor, arguments: Tensor, h: int, w: int) -> Tensor:
    """Return the source positions of geometric operations: ((x, y) - centre) * matrix + offset for a pixel at (x, y).

    Factors of 0 and 1 are exact, so that one formula covers all operations and images without one.
    The argument of Rotate is a sine, because a square root is the same on every device and a cosine is not.

    Args:
        operations: (...) places in NAMES.
        arguments: (...) float32.
        h: height of the images.
        w: their width.

    Returns:
        (... 8) float32: centre x, y; factors of x and y and offset that give x; likewise for y.
    """
    rotates, shears_x, shears_y, moves_x, moves_y = (operations == NAMES.index(name) for name in GEOMETRY)
    cosine, zero = (1 - arguments * arguments).sqrt(), torch.zeros_like(arguments)
    straight = torch.where(rotates, cosine, 1.0)
    middle_x, middle_y = zero.masked_fill(rotates, w / 2), zero.masked_fill(rotates, h / 2)
    x_by_y = torch.where(rotates, -arguments, torch.where(shears_x, arguments, zero))
    y_by_x = torch.where(rotates | shears_y, arguments, zero)
    to_x, to_y = torch.where(moves_x, arguments * w, middle_x), torch.where(moves_y, arguments * h, middle_y)
    return torch.stack((middle_x, middle_y, straight, x_by_y, to_x, y_by_x, straight, to_y), -1)


def source_positions(affine: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the source positions of pixels: (b 8) of `affines` to x and y, (b 1 h w) float32."""
    middle_x, middle_y, x_by_x, x_by_y, to_x, y_by_x, y_by_y, to_y = affine[..., None, None, None].unbind(1)
    own_x, own_y = centres(images)
    x, y = own_x - middle_x, own_y - middle_y
    return x * x_by_x + y * x_by_y + to_x, x * y_by_x + y * y_by_y + to_y


def centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the x (w) and y (h 1) of the pixels' centres."""
    h, w = images.shape[2:]
    return torch.arange(w, device=images.device) + 0.5, (torch.arange(h, device=images.device) + 0.5)[:, None]


def neighbour(position: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixel at or before a position, int64, and the distance from its centre, in [0, 1)."""
    beyond = position - 0.5
    before = beyond.floor()
    return before.long(), beyond - before


def within(position: Tensor, size: int) -> Tensor:
    """Return whether a position is inside the image."""
    return (position >= 0) & (position < size)


def cut_off(moved: Tensor, inside: Tensor) -> Tensor:
    """Convert interpolated float32 pixels to uint8, grey outside the image."""
    return as_levels(torch.where(inside, moved.clamp_(0, 255), _FILL))


def linear(near: Sequence[Tensor], d: Tensor) -> Tensor:
    """Interpolate linearly between two pixels, in Pillow's order of operations."""
    v1, v2 = near
    return (v2 - v1).mul_(d).add_(v1)


def cubic(near: Sequence[Tensor], d: Tensor) -> Tensor:
    """Interpolate cubically between four pixels; Pillow's cubic here has a = -1."""
    v0, v1, v2, v3 = near
    third, second, first = (v1 - v0).sub_(v2).add_(v3), (v0 - v1).mul_(2).add_(v2).sub_(v3), v2 - v0
    return third.mul_(d).add_(second).mul_(d).add_(first).mul_(d).add_(v1)


def move(images: Tensor, affine: Tensor, axes: str, bicubic: bool) -> Tensor:
    """Sample pixels as Pillow's `transform`: edges are repeated, the result is truncated, not rounded.

    Args:
        images: (b c h w) uint8.
        affine: (b 8) of `affines`.
        axes: along which pixels move: x, y or xy; the other one needs no neighbours.
        bicubic: interpolation; bilinear otherwise.
    """
    b, c, h, w = images.shape
    pixels = images.flatten(2).float()
    x, y = (
        source_positions(affine, images)[place] if axis in axes else centres(images)[place]
        for place, axis in enumerate("xy")
    )
    (column, across), (row, down) = neighbour(x), neighbour(y)
    reach = range(-1, 3) if bicubic else range(2)
    columns = {i: (column + i).clamp_(0, w - 1) for i in reach}
    rows = {j: (row + j).clamp_(0, h - 1).mul_(w) for j in reach}
    between = cubic if bicubic else linear

    def fetch(i: int, j: int) -> Tensor:
        index = (rows[j] + columns[i]).expand(b, 1, h, w).flatten(2).expand(b, c, h * w)
        return pixels.gather(2, index).view(b, c, h, w)

    def along_row(j: int) -> Tensor:
        return between([fetch(i, j) for i in reach], across) if "x" in axes else fetch(0, j)

    moved = between([along_row(j) for j in reach], down) if "y" in axes else along_row(0)
    return cut_off(moved, within(x, w) & within(y, h))


TABLES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
}
DEGENERATES: dict[str, Callable[[Tensor], Tensor]] = {
    "Color": grey,
    "Contrast": _mean_grey,
    "Brightness": _black,
    "Sharpness": _smooth,
}
GEOMETRY = {"Rotate": "xy", "ShearX": "x", "ShearY": "y", "TranslateX": "x", "TranslateY": "y"}  # moved along
NAMES = (*TABLES, *DEGENERATES, *GEOMETRY)
GEOMETRIC = len(TABLES) + len(DEGENERATES)  # the first geometric operation
