"""Augmentation with static shapes: every image goes through the same tensor operations, whatever it drew.

On a GPU the hundreds of small kernels of a batch grouped by operation cost more to launch than to run, and their shapes
change with every batch. Here a layer is one look-up, one blend and one move of all images; an image that drew no such
operation has the table, factor or place that changes nothing. One CUDA graph serves all batches, the host waits for
nothing, and the pixels are those of the grouped path, to the byte.

Letters: b batch, n images drawn for, l layers, c channels, h w size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig
from headsweep.data.augment import Drawer, Normaliser, crop_at, erase, flip
from headsweep.data.crop import CropTable, resample
from headsweep.data.operations import (
    DEGENERATES,
    NAMES,
    TABLES,
    blend,
    cubic,
    cut_off,
    linear,
    look,
    neighbour,
    within,
)
from headsweep.data.randaugment import NOTHING, Operations

# Tables of these do not depend on the image, and arguments are whole numbers up to these: each table is made once.
_LARGEST_ARGUMENTS = {"Invert": 0, "Posterize": 4, "Solarize": 256, "SolarizeAdd": 110}
_NUMBERS = 12  # of an image in a layer


def numbers(drawn: Operations) -> Tensor:
    """(n l) draws to (n l 12) float32: operation, row of `Tables`, factor of a blend, bicubic, and where it looks."""
    operations, arguments = drawn.operations, drawn.arguments
    table = _FIRST_ROWS[operations] + torch.minimum(arguments, _LARGEST[operations])
    blends = (operations >= len(TABLES)) & (operations < len(TABLES) + len(DEGENERATES))
    factor = torch.where(blends, arguments, 1.0)
    return torch.cat((torch.stack((operations, table, factor, drawn.bicubic), -1), drawn.looks), -1)


def _first_rows() -> tuple[Tensor, Tensor]:
    """By operation: the row of its table for argument 0, and the largest argument; 0 and 0 where there is no table."""
    first, largest = torch.zeros(2, NOTHING + 1)
    row = 1
    for name, most in _LARGEST_ARGUMENTS.items():
        first[NAMES.index(name)], largest[NAMES.index(name)] = row, most
        row += most + 1
    return first, largest


_FIRST_ROWS, _LARGEST = _first_rows()


class StaticAugmenter:
    """What an `Augmenter` does, and a reader that crops before it."""

    def __init__(self, augmentation: AugmentationConfig, dataset: DatasetConfig, device: torch.device) -> None:
        self.crops_first = crop_at(augmentation, AugmentationOrder.crop_first) is not None
        crop = crop_at(augmentation, augmentation.order)
        self.draw = Drawer(augmentation, dataset.image_size, crop)
        self.table = CropTable(dataset.image_size, device) if crop else None
        self.randaugment = StaticRandAugment(device)
        self.normalise = Normaliser(dataset, device)

    def numbers(self, key: int, indices: Tensor) -> Tensor:
        """What is drawn for (n,) images, on the host, as (n, numbers) float32; whole numbers in it are exact."""
        draws = self.draw(key, indices)
        flipped, holes, layers = draws.flipped[:, None], draws.holes.flatten(1), numbers(draws.randaugment).flatten(1)
        return torch.cat((flipped, draws.crops, holes, layers), 1).float()

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: (b c s s) uint8 of the model's size.
            numbers: as drawn for them, on their device.

        Returns:
            (b c s s) float32, normalised.
        """
        holes_end = 5 + 4 * self.draw.boxes
        flipped, crops, holes, layers = numbers.tensor_split((1, 5, holes_end), 1)
        if self.table and self.crops_first:
            images = resample(images, crops.long(), self.table)
        images = flip(images, flipped[:, 0].long())
        images = self.randaugment(images, layers.unflatten(1, (-1, _NUMBERS)))
        if self.table and not self.crops_first:
            images = resample(images, crops.long(), self.table)
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

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """All layers.

        Args:
            images: (b c h w) uint8.
            drawn: (b l 12) of `numbers`, on the images' device.
        """
        for layer in drawn.unbind(1):
            operations, rows, factors, bicubic = layer[:, :4, None, None, None].unbind(1)
            images = self._looked_up(images, operations[..., 0], rows)
            images = blend(_degenerate(images, operations), images, factors)
            images = moved(images, layer[:, 4:], bicubic > 0)
        return images

    def _looked_up(self, images: Tensor, operations: Tensor, rows: Tensor) -> Tensor:
        own = self.tables.index_select(0, rows.flatten().long())
        for name in ("AutoContrast", "Equalize"):
            table = TABLES[name](self.levels, images, operations)[..., 0]
            own = torch.where(operations == NAMES.index(name), table, own)
        return own.gather(2, images.flatten(2).long()).view(images.shape)


def _degenerate(images: Tensor, operations: Tensor) -> Tensor:
    chosen = torch.zeros((), device=images.device)
    for name, degenerate in DEGENERATES.items():
        chosen = torch.where(operations == NAMES.index(name), degenerate(images), chosen)
    return chosen


def moved(images: Tensor, looks: Tensor, bicubic: Tensor) -> Tensor:
    """As `operations.move` along both axes, with an interpolation for each image.

    Args:
        images: (b c h w) uint8.
        looks: (b 8) of `operations.affines`.
        bicubic: (b 1 1 1) bool.
    """
    b, c, h, w = images.shape
    x, y = look(looks, images)
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
