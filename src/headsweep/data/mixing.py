"""Mixup and cutmix: a batch is mixed with itself, rolled by one. Letters: b batch, c channels, h w size, k classes."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import torch
from torch import Tensor

from headsweep.config import AugmentationConfig
from headsweep.data.augment import times_covered


class Box(NamedTuple):
    """Part of an image, pixels; the ends are excluded."""

    top: int
    left: int
    bottom: int
    right: int


class Mix(NamedTuple):
    """How a batch is mixed: blended, cut or (the default) neither."""

    blend: float = 1.0  # an image's own share of each of its pixels
    box: Box = Box(0, 0, 0, 0)  # the part replaced by the previous image
    share: float = 1.0  # an image's own share of its target

    def numbers(self) -> Tensor:
        """Return (8,) float32, the arguments of `mix_static`."""
        return torch.tensor([self.blend, 1 - self.blend, self.share, 1 - self.share, *self.box])


def soft_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """(b,) int64 to (b k) float32: `smoothing` is spread over all classes, as timm and torch do."""
    own = labels[:, None] == torch.arange(num_classes, device=labels.device)
    return own.float().mul_(1 - smoothing).add_(smoothing / num_classes)


class Mixer:
    """Draws whether and how a batch is mixed, on the host."""

    def __init__(self, augmentation: AugmentationConfig) -> None:
        self.alphas = {"mixup": augmentation.mixup, "cutmix": augmentation.cutmix}
        self.kinds = [kind for kind, alpha in self.alphas.items() if alpha > 0]
        self.probability = augmentation.mix_probability if self.kinds else 0.0

    def draw(self, h: int, w: int, source: random.Random) -> Mix:
        """Draw mixup or cutmix with probability `mix_probability`, with equal chances if both are on.

        Args:
            h: height of the images.
            w: their width.
            source: the stream of the batch.
        """
        if source.random() >= self.probability:
            return Mix()
        kind = source.choice(self.kinds)
        share = source.betavariate(self.alphas[kind], self.alphas[kind])
        if kind == "mixup":
            return Mix(blend=share, share=share)
        box, share = cut_box(share, h, w, source)
        return Mix(box=box, share=share)


def mix(images: Tensor, targets: Tensor, drawn: Mix) -> tuple[Tensor, Tensor]:
    """Images (b c h w) float32, changed in place, and targets (b k) float32, mixed as drawn on the host."""
    if drawn.blend != 1:
        images = mixed(images, drawn.blend, 1 - drawn.blend)
    images = paste(images, drawn.box)
    return images, mixed(targets, drawn.share, 1 - drawn.share) if drawn.share != 1 else targets


def mix_static(images: Tensor, targets: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """The same for m batches, with static shapes.

    Args:
        images: (m b c h w) float32.
        targets: (m b k) float32.
        drawn: (m 8) of `Mix.numbers`, on the images' device.
    """
    blend, rest, share, other = drawn[:, :4, None, None].unbind(1)
    inside = times_covered(drawn[:, None, 4:], *images.shape[3:])[:, None] > 0
    blended = mixed(images, blend[..., None, None], rest[..., None, None], batch=1)
    return torch.where(inside, images.roll(1, 1), blended), mixed(targets, share, other, batch=1)


def mixed(values: Tensor, share: float | Tensor, rest: float | Tensor, batch: int = 0) -> Tensor:
    """`share` of each image and `rest` of the one before it along dimension `batch`."""
    return values * share + values.roll(1, batch) * rest


def cut_box(share: float, h: int, w: int, source: random.Random) -> tuple[Box, float]:
    """Draw a box of area 1 - share around a uniform centre, clipped; return it and the remaining share."""
    half = 0.5 * math.sqrt(1 - share)
    tall, wide = int(half * h), int(half * w)
    y, x = source.randrange(h), source.randrange(w)
    box = Box(max(y - tall, 0), max(x - wide, 0), min(y + tall, h), min(x + wide, w))
    return box, 1 - (box.bottom - box.top) * (box.right - box.left) / (h * w)


def paste(images: Tensor, box: Box) -> Tensor:
    """Fill the box of each image from the image before it, in place."""
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    images[:, :, rows, columns] = images[:, :, rows, columns].roll(1, 0)
    return images
