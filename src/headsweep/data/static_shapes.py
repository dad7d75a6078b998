"""Augmentation with static shapes: every batch passes the same tensor operations, whatever its images drew.

On a GPU, launching the hundreds of small kernels of a batch grouped by operation takes longer than running them, and
their shapes change with every batch. Here a layer is one look-up, one blend and one move, each sized so that hardly any
batch draws more; then each image gathers its own result. One CUDA graph serves all batches without a device sync, and
the pixels equal those of the grouped path, to the byte.

Letters: b batch, n images drawn for, l layers, c channels, h w size; t, u, v images with a slot in a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig
from headsweep.data.augment import Drawer, Normaliser, crop_at, erase, flip
from headsweep.data.crop import CropTable, resample
from headsweep.data.operations import (
    DEGENERATES,
    GEOMETRY,
    NAMES,
    TABLES,
    blend,
    cubic,
    cut_off,
    linear,
    neighbour,
    source_positions,
    within,
)
from headsweep.data.randaugment import NOTHING, Operations, Policy

# Tables of these do not depend on the image and have integer arguments up to these: each table is computed once.
_LARGEST_ARGUMENTS = {"Invert": 0, "Posterize": 4, "Solarize": 256, "SolarizeAdd": 110}
_FAMILIES = len(TABLES), len(DEGENERATES), len(GEOMETRY)  # number of look-ups, blends, moves
_FAMILY = torch.tensor([family for family, count in enumerate(_FAMILIES) for _ in range(count)] + [len(_FAMILIES)])
_DEVIATIONS = 5  # standard deviations above the mean: one batch in 100,000 needs more in some family


class Layers(NamedTuple):
    """Operations of n images in each layer; unused slots compute image 0 and are not gathered."""

    looked: Tensor  # (l t 3) float32: which image, operation, row of the tables
    blended: Tensor  # (l u 3) float32: which image, operation, factor
    moved: Tensor  # (l v 10) float32: which image, whether bicubic, source positions
    taken: Tensor  # (l n) int64: result of each image, an index into (images, looked up, blended, moved)


def slot_counts(policy: Policy, n: int) -> tuple[int, ...]:
    """Return the slots of each family for n images."""
    shares = [policy.probability * count / len(NAMES) for count in _FAMILIES]
    return tuple(min(n, ceil(n * p + _DEVIATIONS * sqrt(n * p * (1 - p)))) for p in shares)


def layers(drawn: Operations, slots: Sequence[int]) -> Layers:
    """Encode operations with so many slots for each family, or more if more images drew it."""
    operations, arguments = drawn.operations, drawn.arguments
    rows = _FIRST_ROWS[operations] + torch.minimum(arguments, _LARGEST[operations])
    details = (
        torch.stack((operations, rows), -1),
        torch.stack((operations, arguments), -1),
        torch.cat((drawn.bicubic[..., None], drawn.affine), -1),
    )
    computed, taken = [], torch.arange(len(operations)).repeat(operations.shape[1], 1)
    first = len(operations)
    for family, (least, its) in enumerate(zip(slots, details, strict=True)):
        chosen = [(layer == family).nonzero()[:, 0] for layer in _FAMILY[operations].unbind(1)]
        most = max((least, *map(len, chosen)))
        put = torch.zeros(len(chosen), most, 1 + its.shape[2])
        for layer, images in enumerate(chosen):
            put[layer, : len(images)] = torch.cat((images[:, None], its[images, layer]), 1)
            taken[layer, images] = first + torch.arange(len(images))
        computed.append(put)
        first += most
    looked, blended, moved = computed
    return Layers(looked, blended, moved, taken)


def _first_rows() -> tuple[Tensor, Tensor]:
    """Return by operation the row of its table for argument 0 and the largest argument; 0 and 0 without a table."""
    first, largest = torch.zeros(2, NOTHING + 1)
    row = 1
    for name, most in _LARGEST_ARGUMENTS.items():
        first[NAMES.index(name)], largest[NAMES.index(name)] = row, most
        row += most + 1
    return first, largest


_FIRST_ROWS, _LARGEST = _first_rows()


class StaticAugmenter:
    """Computes what an `Augmenter`, and a reader that crops before it, compute."""

    def __init__(self, augmentation: AugmentationConfig, dataset: DatasetConfig, device: torch.device) -> None:
        self.crops_first = crop_at(augmentation, AugmentationOrder.crop_first) is not None
        crop = crop_at(augmentation, augmentation.order)
        self.draw = Drawer(augmentation, dataset.image_size, crop)
        self.table = CropTable(dataset.image_size, device) if crop else None
        self.randaugment = StaticRandAugment(device)
        self.normalise = Normaliser(dataset, device)

    def numbers(self, key: int, indices: Tensor) -> tuple[Tensor, Layers]:
        """Draw for (n,) images on the host: (n, numbers) int64, and the layers of RandAugment."""
        draws, policy = self.draw(key, indices), self.draw.randaugment
        slots = slot_counts(policy.policy, len(indices)) if policy else (0, 0, 0)
        numbers = torch.cat((draws.flipped[:, None], draws.crops, draws.holes.flatten(1)), 1)
        return numbers, layers(draws.randaugment, slots)

    def __call__(self, images: Tensor, numbers: Tensor, layers: Layers) -> Tensor:
        """Augment a batch.

        Args:
            images: (n c s s) uint8 of the model's size.
            numbers: as drawn for them, on their device.
            layers: likewise.

        Returns:
            (n c s s) float32, normalised.
        """
        flipped, crops, holes = numbers.tensor_split((1, 5), 1)
        if self.table and self.crops_first:
            images = resample(images, crops, self.table)
        images = self.randaugment(flip(images, flipped[:, 0]), layers)
        if self.table and not self.crops_first:
            images = resample(images, crops, self.table)
        return erase(self.normalise(images), holes.unflatten(1, (-1, 4)))


class StaticRandAugment:
    """RandAugment on images of a device."""

    def __init__(self, device: torch.device) -> None:
        self.levels = torch.arange(256, dtype=torch.uint8, device=device).view(1, 1, 256, 1)
        tables = [self.levels]
        for name, largest in _LARGEST_ARGUMENTS.items():
            arguments = torch.arange(largest + 1.0, device=device)[:, None, None, None]
            table = TABLES[name](self.levels, self.levels, arguments)
            tables.append(table.expand(largest + 1, 1, 256, 1))
        self.tables = torch.cat(tables)[:, :, :, 0]  # (rows 1 256) uint8; row 0 changes nothing

    def __call__(self, images: Tensor, layers: Layers) -> Tensor:
        """Apply all layers to (n c h w) uint8, on their device."""
        families = self._looked_up, _blended, _moved
        for *parts, taken in zip(*(values.unbind() for values in layers), strict=True):
            computed = [
                family(images.index_select(0, part[:, 0].long()), part[:, 1:])
                for family, part in zip(families, parts, strict=True)
            ]
            images = torch.cat((images, *computed)).index_select(0, taken)
        return images

    def _looked_up(self, images: Tensor, drawn: Tensor) -> Tensor:
        operations, rows = drawn[..., None, None].unbind(1)
        own = self.tables.index_select(0, rows.flatten().long())
        for name in ("AutoContrast", "Equalize"):
            table = TABLES[name](self.levels, images, operations)[..., 0]
            own = torch.where(operations == NAMES.index(name), table, own)
        return own.gather(2, images.flatten(2).long()).view(images.shape)


def _blended(images: Tensor, drawn: Tensor) -> Tensor:
    operations, factors = drawn[..., None, None, None].unbind(1)
    chosen = torch.zeros((), device=images.device)
    for name, degenerate in DEGENERATES.items():
        chosen = torch.where(operations == NAMES.index(name), degenerate(images), chosen)
    return blend(chosen, images, factors)


def _moved(images: Tensor, drawn: Tensor) -> Tensor:
    """As `operations.move` along both axes, with an interpolation for each image."""
    b, c, h, w = images.shape
    bicubic, (x, y) = drawn[:, :1, None, None] > 0, source_positions(drawn[:, 1:], images)
    (column, across), (row, down) = neighbour(x), neighbour(y)
    reach = torch.arange(-1, 3, device=images.device).view(4, 1, 1)
    columns, rows = (column + reach).clamp_(0, w - 1), (row + reach).clamp_(0, h - 1).mul_(w)  # (b 4 h w)
    index = (rows[:, :, None] + columns[:, None]).view(b, 1, 16 * h * w).expand(b, c, -1)
    near = images.flatten(2).float().gather(2, index).view(b, c, 4, 4, h, w)  # rows, columns
    along_rows = _between(near, 3, across[:, :, None], bicubic[..., None])
    return cut_off(_between(along_rows, 2, down, bicubic), within(x, w) & within(y, h))


def _between(near: Tensor, axis: int, d: Tensor, bicubic: Tensor) -> Tensor:
    four = near.unbind(axis)
    return torch.where(bicubic, cubic(four, d), linear(four[1:3], d))
