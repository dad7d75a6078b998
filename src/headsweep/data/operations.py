"""The fifteen operations of RandAugment on uint8 batches, each as Pillow computes it.

Letters: b images, c channels (1 or 3), h w size. Each operation maps (b c h w) uint8 and its argument (b 1 1 1) float32
to (b c h w) uint8.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_FILL = 128  # what timm shows where a geometric operation looks outside the image
_MIDDLE = 128  # SolarizeAdd brightens the levels below this


def apply(operation: int, images: Tensor, arguments: Tensor, bicubic: bool) -> Tensor:
    """Apply the operation NAMES[operation].

    Args:
        operation: index into NAMES.
        images: (b c h w) uint8.
        arguments: (b,) float32.
        bicubic: interpolation of a geometric operation; bilinear otherwise.
    """
    argument = arguments[:, None, None, None]
    if operation < GEOMETRIC:
        return _POINTWISE[NAMES[operation]](images, argument)
    return _move(images, *_SOURCES[NAMES[operation]](images, argument), bicubic)


def _auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    levels = images.flatten(2)
    least, most = levels.amin(2).float()[..., None, None], levels.amax(2).float()[..., None, None]
    flat = most == least  # such a channel stays as it is
    least, most = least.masked_fill(flat, 0), most.masked_fill(flat, 255)
    # The quotient of whole numbers below 2^16: floor is exact.
    return images.float().sub_(least).mul_(255).div_(most - least).to(torch.uint8)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    levels = images.flatten(2).long()
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones((), dtype=torch.int64, device=images.device).expand_as(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    # An image with one level, or too few pixels, stays as it is.
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.to(torch.uint8).gather(2, levels).view(images.shape)


def _invert(images: Tensor, _: Tensor) -> Tensor:
    return 255 - images


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    dropped = torch.ones_like(bits, dtype=torch.int32) << (8 - bits).int()
    return images & (256 - dropped).to(torch.uint8)


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images < threshold.to(torch.int16), images, 255 - images)


def _solarize_add(images: Tensor, add: Tensor) -> Tensor:
    # add is at most 110: below the middle the sum stays below 256.
    return torch.where(images < _MIDDLE, images + add.to(torch.uint8), images)


def _color(images: Tensor, factor: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else _blend(_grey(images), images, factor)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    pixels = images.shape[2] * images.shape[3]
    total = _grey(images).long().sum((1, 2, 3), keepdim=True)
    return _blend(((2 * total + pixels) // (2 * pixels)).float(), images, factor)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return images.float().mul_(factor).clamp_(max=255).to(torch.uint8)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed image, whose border Pillow leaves as it is."""
    pixels = images.float()
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * pixels[:, :, 1:-1, 1:-1]
    smooth = pixels.clone()
    smooth[:, :, 1:-1, 1:-1] = (total / 13 + 0.5).floor_()
    return _blend(smooth, images, factor)


def _grey(images: Tensor) -> Tensor:
    """(b 1 h w) float32: Pillow's luma, whole numbers below 2^24 and thus exact."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.float().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768).mul_(2.0**-16).floor_()


def _blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Pillow's Image.blend: cut off, not rounded."""
    return images.float().sub_(degenerate).mul_(factor).add_(degenerate).clamp_(0, 255).to(torch.uint8)


# Geometry. A source says where each output pixel looks: x and y, in pixels from the upper left corner, float32 that
# broadcasts to (b 1 h w); None where the coordinate is the pixel's own.
Sources = tuple[Tensor | None, Tensor | None]


def _centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """The x (1 1 1 w) and y (1 1 h 1) of the pixels' centres."""
    h, w = images.shape[2:]
    x = torch.arange(w, device=images.device) + 0.5
    y = torch.arange(h, device=images.device) + 0.5
    return x.view(1, 1, 1, w), y.view(1, 1, h, 1)


def _rotate(images: Tensor, sine: Tensor) -> Sources:
    """The argument is the sine of the angle, because a square root is the same on every device and a cosine is not."""
    x, y = _centres(images)
    middle_x, middle_y = images.shape[3] / 2, images.shape[2] / 2
    cosine = (1 - sine * sine).sqrt()
    x, y = x - middle_x, y - middle_y
    return x * cosine - y * sine + middle_x, x * sine + y * cosine + middle_y


def _shear_x(images: Tensor, factor: Tensor) -> Sources:
    x, y = _centres(images)
    return x + y * factor, None


def _shear_y(images: Tensor, factor: Tensor) -> Sources:
    x, y = _centres(images)
    return None, y + x * factor


def _translate_x(images: Tensor, share: Tensor) -> Sources:
    return _centres(images)[0] + share * images.shape[3], None


def _translate_y(images: Tensor, share: Tensor) -> Sources:
    return None, _centres(images)[1] + share * images.shape[2]


def _move(images: Tensor, x: Tensor | None, y: Tensor | None, bicubic: bool) -> Tensor:
    """Look the pixels up at (x, y) as Pillow's `transform`: edges are repeated, the result is cut off, not rounded."""
    b, c, h, w = images.shape
    pixels = images.flatten(2).float()
    own_x, own_y = _centres(images)
    column, across = _neighbour(own_x if x is None else x)
    row, down = _neighbour(own_y if y is None else y)
    reach = range(-1, 3) if bicubic else range(2)
    columns = {i: (column + i).clamp_(0, w - 1) for i in reach}
    rows = {j: (row + j).clamp_(0, h - 1).mul_(w) for j in reach}

    def fetch(i: int, j: int) -> Tensor:
        index = (rows[j] + columns[i]).flatten(2).expand(b, c, h * w)
        return pixels.gather(2, index).view(b, c, h, w)

    def along_row(j: int) -> Tensor:
        return fetch(0, j) if x is None else _interpolate(lambda i: fetch(i, j), across, bicubic)

    moved = along_row(0) if y is None else _interpolate(along_row, down, bicubic)
    inside = _within(x, w) & _within(y, h)
    return torch.where(inside, moved.clamp_(0, 255), _FILL).to(torch.uint8)


def _neighbour(position: Tensor) -> tuple[Tensor, Tensor]:
    """The pixel at or before a position, int64, and how far beyond its centre the position lies, in [0, 1)."""
    beyond = position - 0.5
    before = beyond.floor()
    return before.long(), beyond - before


def _within(position: Tensor | None, size: int) -> Tensor:
    return torch.tensor(True) if position is None else (position >= 0) & (position < size)


def _interpolate(fetch: Callable[[int], Tensor], d: Tensor, bicubic: bool) -> Tensor:
    """Between the pixels fetch(0) and fetch(1), in Pillow's order of operations; its cubic here has a = -1."""
    if not bicubic:
        v0, v1 = fetch(0), fetch(1)
        return (v1 - v0).mul_(d).add_(v0)
    v0, v1, v2, v3 = fetch(-1), fetch(0), fetch(1), fetch(2)
    cubic, square, line = (v1 - v0).sub_(v2).add_(v3), (v0 - v1).mul_(2).add_(v2).sub_(v3), v2 - v0
    return cubic.mul_(d).add_(square).mul_(d).add_(line).mul_(d).add_(v1)


_POINTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _color,
    "Contrast": _contrast,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
}
_SOURCES: dict[str, Callable[[Tensor, Tensor], Sources]] = {
    "Rotate": _rotate,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
}
NAMES = (*_POINTWISE, *_SOURCES)
GEOMETRIC = len(_POINTWISE)  # the first geometric operation
