"""Mixup and cutmix: a batch is mixed with itself, rolled by one. Letters: b batch, c channels, h w size, k classes."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from headsweep.config import AugmentationConfig


class Box(NamedTuple):
    """Part of an image, pixels; the ends are excluded."""

    top: int
    left: int
    bottom: int
    right: int


def soft_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """(b,) int64 to (b k) float32: `smoothing` is spread over all classes, as timm and torch do."""
    return F.one_hot(labels, num_classes).float().mul_(1 - smoothing).add_(smoothing / num_classes)


class Mixer:
    """Draws per batch, on the host, whether and how the batch is mixed."""

    def __init__(self, augmentation: AugmentationConfig) -> None:
        self.alphas = {"mixup": augmentation.mixup, "cutmix": augmentation.cutmix}
        self.kinds = [kind for kind, alpha in self.alphas.items() if alpha > 0]
        self.probability = augmentation.mix_probability if self.kinds else 0.0

    def __call__(self, images: Tensor, targets: Tensor, source: random.Random) -> tuple[Tensor, Tensor]:
        """Mix a batch with probability `mix_probability`, by mixup or cutmix with equal chances if both are on.

        Args:
            images: (b c h w) float32; changed in place.
            targets: (b k) float32.
            source: the stream of the batch.
        """
        if source.random() >= self.probability:
            return images, targets
        kind = source.choice(self.kinds)
        share = source.betavariate(self.alphas[kind], self.alphas[kind])
        if kind == "mixup":
            return mixed(images, share), mixed(targets, share)
        box, share = cut_box(share, images.shape[2], images.shape[3], source)
        return paste(images, box), mixed(targets, share)


def mixed(values: Tensor, share: float) -> Tensor:
    """`share` of each row and the rest of the row before it."""
    return values * share + values.roll(1, 0) * (1 - share)


def cut_box(share: float, h: int, w: int, source: random.Random) -> tuple[Box, float]:
    """A box of 1 - share of the area around a uniform centre, clipped at the border, and the share that is left."""
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
