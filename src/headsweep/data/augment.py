"""Augmentation of a batch of equally sized images: flip, RandAugment, optional crop, normalisation, erasing.

Every random choice of a sample is a function of (key, sample index) and is drawn on the host, so that a sample is
augmented equally in every batch and on every device. Letters: b batch, c channels, h w size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from headsweep import rng
from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig
from headsweep.data.crop import TRIES, Crop, CropTable, between, first_fit, offset, resample
from headsweep.data.randaugment import Operations, Policy, RandAugment, randaugment
from headsweep.data.sources import to_device

# timm's RandomErasing: erased share of the area, and log of a box's aspect ratio.
_ERASED_AREA = 0.02, 1 / 3
_ERASED_LOG_RATIO = math.log(0.3), math.log(1 / 0.3)


def crop_at(augmentation: AugmentationConfig, order: AugmentationOrder) -> Crop | None:
    """Return the random resized crop if the configuration has one at this position."""
    if augmentation.crop_scale is None or augmentation.order is not order:
        return None
    scale, ratio = augmentation.crop_scale, augmentation.crop_ratio
    return Crop((scale[0], scale[1]), (ratio[0], ratio[1]))


class Normaliser:
    """Maps uint8 images to float32 with mean 0 and standard deviation 1 per channel."""

    def __init__(self, dataset: DatasetConfig, device: torch.device) -> None:
        def constant(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device).view(1, -1, 1, 1)

        self.mean = constant([255 * mean for mean in dataset.mean])
        self.scale = constant([1 / (255 * std) for std in dataset.std])

    def __call__(self, images: Tensor) -> Tensor:
        """(b c h w) uint8 to (b c h w) float32."""
        return images.float().sub_(self.mean).mul_(self.scale)

    def undo(self, images: Tensor) -> Tensor:
        """Normalised (b c h w) float32 to (b c h w) float32 in [0, 1], for display."""
        return ((images / self.scale + self.mean) / 255).clamp(0, 1)


class Draws(NamedTuple):
    """Random draws for n images, on the host."""

    flipped: Tensor  # (n,) bool
    randaugment: Operations
    crops: Tensor  # (n 4) int64: top, left, height, width
    holes: Tensor  # (n k 4) int64: top, left, bottom, right of the erased boxes


class Drawer:
    """Draws the random numbers of the enabled augmentations."""

    def __init__(self, augmentation: AugmentationConfig, size: int, crop: Crop | None) -> None:
        """Draw for images of side `size`; with `crop`, also its boxes."""
        self.size, self.crop, self.flip_probability = size, crop, augmentation.flip
        self.erasing, self.boxes = augmentation.erasing, augmentation.erasing_count if augmentation.erasing else 0
        policy = augmentation.randaugment
        self.randaugment = RandAugment(Policy.parse(policy), size) if policy else None

    def __call__(self, key: int, indices: Tensor) -> Draws:
        """Draw for n images at once.

        Args:
            key: of the augmentation stream of an epoch.
            indices: (n,) int64 sample indices, on the host.
        """
        n, size = len(indices), self.size
        sides = torch.full_like(indices, size)
        return Draws(
            flipped=rng.uniforms(rng.derive(key, "flip"), indices, 1)[:, 0] < self.flip_probability,
            randaugment=self.randaugment.draw(key, indices) if self.randaugment else Operations.none(n),
            crops=self.crop.boxes(key, indices, sides, sides) if self.crop else torch.zeros(n, 4, dtype=torch.int64),
            holes=erased_boxes(key, indices, self.erasing, self.boxes, size, size),
        )


class Augmenter:
    """Applies the enabled ones of flip, RandAugment, last crop, normalisation and erasing."""

    def __init__(self, augmentation: AugmentationConfig, dataset: DatasetConfig, device: torch.device) -> None:
        crop = crop_at(augmentation, AugmentationOrder.crop_last)
        self.draw = Drawer(augmentation, dataset.image_size, crop)
        self.table = CropTable(dataset.image_size, device) if crop else None
        self.normalise = Normaliser(dataset, device)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Augment the images of one batch or several.

        Args:
            images: (n c s s) uint8 of the model's size; may be changed in place.
            draws: for each of them.

        Returns:
            (n c s s) uint8.
        """
        there = images.device
        if self.draw.flip_probability:
            images = flip(images, to_device(draws.flipped, there))
        images = randaugment(images, draws.randaugment)
        return resample(images, to_device(draws.crops, there), self.table) if self.table else images

    def normalised(self, images: Tensor, holes: Tensor) -> Tensor:
        """(b c s s) uint8 to float32, normalised, with the drawn holes (b k 4), on their device."""
        normal = self.normalise(images)
        return erase(normal, holes) if self.draw.erasing else normal


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the images horizontally where `flipped` (b,) is true."""
    rows = torch.arange(len(images), device=images.device) + len(images) * flipped
    return torch.cat((images, images.flip(3))).index_select(0, rows)


def erased_boxes(key: int, indices: Tensor, probability: float, most: int, h: int, w: int) -> Tensor:
    """Draw the boxes of timm's RandomErasing: 0, or 1 to `most` per image, which share the erased area.

    Returns:
        (b, most, 4) int64: top, left, bottom, right; empty where nothing is erased.
    """
    if not most:
        return torch.zeros(len(indices), 0, 4, dtype=torch.int64)
    tries = 2 * TRIES + 2
    draws = rng.uniforms(rng.derive(key, "erasing"), indices, 2 + most * tries).double()
    count = 1 + offset(draws[:, 1:2], torch.tensor(most - 1))
    boxes = draws[:, 2:].view(len(indices), most, tries)
    area = between(boxes[..., :TRIES], *_ERASED_AREA) * h * w / count[..., None]
    ratio = between(boxes[..., TRIES : 2 * TRIES], *_ERASED_LOG_RATIO).exp()
    # A box is smaller than the image along both axes.
    sides = first_fit(area, ratio, torch.tensor([h - 1]), torch.tensor([w - 1]))
    top, left = offset(boxes[..., -2], h - sides.height), offset(boxes[..., -1], w - sides.width)
    drawn = torch.stack((top, left, top + sides.height, left + sides.width), -1)
    present = sides.found & (draws[:, :1] < probability) & (torch.arange(most) < count)
    return drawn * present[..., None]


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set the boxes (b, k, 4) of normalised images, float32, to 0, the mean colour; in place."""
    # A bit mask: on a CPU, a tenth of the time of masked_fill.
    kept = -(times_covered(boxes, *images.shape[2:]) == 0).int()
    return images.view(torch.int32).bitwise_and_(kept).view(images.dtype)


def times_covered(boxes: Tensor, h: int, w: int) -> Tensor:
    """Count the boxes (b k 4) that cover each pixel: (b 1 h w) float32."""
    top, left, bottom, right = boxes[..., None].unbind(2)
    y, x = torch.arange(h, device=boxes.device), torch.arange(w, device=boxes.device)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return torch.bmm(rows.float().transpose(1, 2), columns.float())[:, None]
