"""augmentation=paper equals the published pipeline on Pillow images, with the same draws."""

import math

import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP

from headsweep.config import AugmentationOrder
from headsweep.data.augment import Augmenter, Drawer, crop_at, erased_boxes
from headsweep.data.loader import TrainLoader
from headsweep.data.operations import NAMES
from headsweep.data.randaugment import NOTHING, Policy, RandAugment
from headsweep.data.sources import ResidentSource

CPU = torch.device("cpu")
KEY, INDICES = 5, torch.arange(60)


def drawn_operations(recipe):
    """For each image its (operation, argument, interpolation), one after the other."""
    drawn = RandAugment(Policy.parse(recipe.randaugment), 32).draw(KEY, INDICES)
    rows = zip(drawn.operations.tolist(), drawn.arguments.tolist(), drawn.bicubic.tolist(), strict=True)
    return [[(NAMES[o], a, b) for o, a, b in zip(*row, strict=True) if o != NOTHING] for row in rows]


def by_pillow(image, name, argument, bicubic):
    """The function of timm for an operation."""
    units = {
        "Rotate": lambda sine: math.degrees(math.asin(sine)),
        "Posterize": int,
        "Solarize": int,
        "SolarizeAdd": int,
    }
    operation = NAME_TO_OP[name + "Rel" if name.startswith("Translate") else name]
    if name in ("AutoContrast", "Equalize", "Invert"):
        return operation(image)
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    return operation(image, units.get(name, float)(argument), fillcolor=(128, 128, 128), resample=resample)


@pytest.fixture
def upstream(pictures, make_dataset, make_augmentation):
    """(60, 3, 32, 32): flip, RandAugment, crop, tensor, normalisation, erasing."""
    recipe, dataset = make_augmentation("paper"), make_dataset("cifar100")
    flipped = Drawer(recipe, 32, None)(KEY, INDICES).flipped
    side = torch.full((60,), 32)
    crops = crop_at(recipe, AugmentationOrder.crop_last).boxes(KEY, INDICES, side, side)
    holes = erased_boxes(KEY, INDICES, recipe.erasing, recipe.erasing_count, 32, 32)
    images = []
    for row, operations in enumerate(drawn_operations(recipe)):
        image = Image.fromarray(pictures[row])
        image = TF.hflip(image) if flipped[row] else image
        for operation in operations:
            image = by_pillow(image, *operation)
        image = TF.resized_crop(image, *crops[row].tolist(), [32, 32], TF.InterpolationMode.BICUBIC)
        image = TF.normalize(TF.to_tensor(image), dataset.mean, dataset.std)
        for top, left, bottom, right in holes[row].tolist():
            image = TF.erase(image, top, left, bottom - top, right - left, torch.tensor(0.0))
        images.append(image)
    return torch.stack(images)


def test_pixels_are_upstreams(upstream, tiles, make_dataset, make_augmentation):
    augment = Augmenter(make_augmentation("paper"), make_dataset("cifar100"), CPU)
    draws = augment.draw(KEY, INDICES)
    got = augment.normalised(augment(tiles, draws), draws.holes)
    assert torch.isclose(got, upstream, atol=1e-5).float().mean() > 0.998
    levels = (got - upstream).abs() * 255 * torch.tensor(make_dataset("cifar100").std).view(3, 1, 1)
    assert levels.max() < 8  # a geometric operation may fall one level short, what follows may stretch that


def first_images(tiles, make_dataset, recipe):
    source = ResidentSource(tiles, torch.zeros(60, dtype=torch.int64))
    return next(TrainLoader(source, make_dataset("cifar100"), recipe, 0, 60, CPU, 0).epoch(0)).images


def test_images_are_cropped_once_wherever_the_crop_stands(tiles, make_dataset, make_augmentation):
    """Nothing stands between the two places here, so they are one."""
    crop_only = {"flip": 0.0, "randaugment": None, "erasing": 0.0, "mix_probability": 0.0}
    uncropped = first_images(tiles, make_dataset, make_augmentation("none"))
    views = [
        first_images(tiles, make_dataset, make_augmentation("paper", order=order, **crop_only))
        for order in AugmentationOrder
    ]
    assert torch.equal(*views) and not torch.equal(views[0], uncropped)


def test_the_order_matters(tiles, make_dataset, make_augmentation):
    views = [
        first_images(tiles, make_dataset, make_augmentation("paper", order=order, mix_probability=0.0))
        for order in AugmentationOrder
    ]
    changed = (views[0] != views[1]).flatten(1).any(1)
    assert 0.3 < changed.float().mean() < 1
