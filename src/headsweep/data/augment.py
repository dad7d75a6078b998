"""What is done to a batch of training images of one size: flip, RandAugment, perhaps crop, normalisation, erasing.

Every random choice of a sample is a function of (key, sample index) and is drawn on the host, so that a sample looks
the same in every batch, on every device. Letters: b batch, c channels, h w size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headsweep import streams
from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig
from headsweep.data.crop import TRIES, Crop, CropTable, between, first_fit, offset, resample
from headsweep.data.randaugment import Policy, RandAugment
from headsweep.data.sources import to_device

# timm's RandomErasing: share of the area that is erased, and log of a box's aspect ratio.
_ERASED_AREA = 0.02, 1 / 3
_ERASED_LOG_RATIO = math.log(0.3), math.log(1 / 0.3)


def crop_at(augmentation: AugmentationConfig, order: AugmentationOrder) -> Crop | None:
    """The random resized crop, where the configuration asks for one at this place."""
    if augmentation.crop_scale is None or augmentation.order is not order:
        return None
    scale, ratio = augmentation.crop_scale, augmentation.crop_ratio
    return Crop((scale[0], scale[1]), (ratio[0], ratio[1]))


class Normaliser:
    """Maps uint8 images to float32 of mean 0 and deviation 1 per channel."""

    def __init__(self, dataset: DatasetConfig, device: torch.device) -> None:
        def constant(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device).view(1, -1, 1, 1)

        self.mean = constant([255 * mean for mean in dataset.mean])
        self.scale = constant([1 / (255 * std) for std in dataset.std])

    def __call__(self, images: Tensor) -> Tensor:
        """(b c h w) uint8 to (b c h w) float32."""
        return images.float().sub_(self.mean).mul_(self.scale)

    def undo(self, images: Tensor) -> Tensor:
        """(b c h w) float32 as it was normalised to (b c h w) float32 in [0, 1], as images are shown."""
        return ((images / self.scale + self.mean) / 255).clamp(0, 1)


class Augmenter:
    """Flip, RandAugment, a crop that comes last, normalisation and erasing, each where it is switched on."""

    def __init__(self, augmentation: AugmentationConfig, dataset: DatasetConfig, device: torch.device) -> None:
        self.flip_probability = augmentation.flip
        self.erasing, self.boxes = augmentation.erasing, augmentation.erasing_count
        policy = augmentation.randaugment
        self.randaugment = RandAugment(Policy.parse(policy)) if policy else None
        self.crop = crop_at(augmentation, AugmentationOrder.crop_last)
        self.table = CropTable(dataset.image_size, device)
        self.normalise = Normaliser(dataset, device)

    def __call__(self, images: Tensor, key: int, indices: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: (b c s s) uint8 of the model's size; may be changed in place.
            key: of the augmentation stream of an epoch.
            indices: (b,) int64 sample indices, on the host.

        Returns:
            (b c s s) float32, normalised.
        """
        if self.flip_probability:
            images = flip(images, key, indices, self.flip_probability)
        if self.randaugment:
            images = self.randaugment(images, key, indices)
        if self.crop:
            images = self._cropped(images, self.crop, key, indices)
        normal = self.normalise(images)
        if self.erasing:
            boxes = erased_boxes(key, indices, self.erasing, self.boxes, *images.shape[2:])
            normal = erase(normal, to_device(boxes, images.device))
        return normal

    def _cropped(self, images: Tensor, crop: Crop, key: int, indices: Tensor) -> Tensor:
        sides = torch.full_like(indices, self.table.size)
        boxes = crop.boxes(key, indices, sides, sides)
        return resample(images, to_device(boxes, images.device), self.table)


def flip(images: Tensor, key: int, indices: Tensor, probability: float) -> Tensor:
    """Mirror each image, left and right, with `probability`."""
    drawn = streams.uniforms(streams.derive(key, "flip"), indices, 1)[:, 0] < probability
    rows = to_device(drawn.nonzero()[:, 0], images.device)
    return images.index_copy(0, rows, images.index_select(0, rows).flip(3))


def erased_boxes(key: int, indices: Tensor, probability: float, most: int, h: int, w: int) -> Tensor:
    """Draw the boxes of timm's RandomErasing: 1 to `most` in an image, which share the area between them.

    Returns:
        (b, most, 4) int64: top, left, bottom, right; empty where nothing is erased.
    """
    tries = 2 * TRIES + 2
    draws = streams.uniforms(streams.derive(key, "erasing"), indices, 2 + most * tries).double()
    count = 1 + offset(draws[:, 1:2], torch.tensor(most - 1))
    boxes = draws[:, 2:].view(len(indices), most, tries)
    area = between(boxes[..., :TRIES], *_ERASED_AREA) * h * w / count[..., None]
    ratio = between(boxes[..., TRIES : 2 * TRIES], *_ERASED_LOG_RATIO).exp()
    # A box is smaller than the image in both directions.
    sides = first_fit(area, ratio, torch.tensor([h - 1]), torch.tensor([w - 1]))
    top, left = offset(boxes[..., -2], h - sides.height), offset(boxes[..., -1], w - sides.width)
    drawn = torch.stack((top, left, top + sides.height, left + sides.width), -1)
    present = sides.found & (draws[:, :1] < probability) & (torch.arange(most) < count)
    return drawn * present[..., None]


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set the boxes (b, k, 4) of normalised images to 0, the mean colour; in place."""
    top, left, bottom, right = boxes[..., None].unbind(2)
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    boxes_over = torch.bmm(rows.float().transpose(1, 2), columns.float())  # (b h w), how many boxes cover a pixel
    return images.masked_fill_(boxes_over[:, None] > 0, 0.0)
