"""Crops equal Pillow's, and are distributed as torchvision's."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from headsweep.data.crop import Crop, CropTable, resample
from headsweep.data.sources import crop_image

STRONG = Crop((0.05, 1.0), (3 / 4, 4 / 3))


def draw(crop, count, height, width, key=0):
    ones = torch.ones(count, dtype=torch.int64)
    return crop.boxes(key, torch.arange(count), ones * height, ones * width)


@pytest.mark.parametrize("size", [8, 32, 48])
def test_equals_pillow_bit_for_bit(photos, size):
    images = np.stack([photos[i % 2][3 * i : 3 * i + size, 5 * i : 5 * i + size] for i in range(100)])
    boxes = draw(STRONG, 100, size, size)
    expected = [
        np.asarray(crop_image(Image.fromarray(im), box, size)) for im, box in zip(images, boxes.tolist(), strict=True)
    ]
    got = resample(torch.from_numpy(images).permute(0, 3, 1, 2), boxes, CropTable(size, torch.device("cpu")))
    assert np.array_equal(got.permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_every_length_equals_pillow(pictures):
    boxes = torch.tensor([(0, 32 - n, n, n) for n in range(1, 33)])
    expected = [np.asarray(crop_image(Image.fromarray(pictures[0]), box, 32)) for box in boxes.tolist()]
    images = torch.from_numpy(pictures[0]).permute(2, 0, 1).expand(32, 3, 32, 32)
    got = resample(images, boxes, CropTable(32, torch.device("cpu")))
    assert np.array_equal(got.permute(0, 2, 3, 1).numpy(), np.stack(expected))


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(32, 32), (60, 200), (11, 9)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.8, 1.0)])
def test_is_distributed_as_torchvision(height, width, scale):
    """Area, ratio and place: Kolmogorov and Smirnov's test of two samples."""
    n, image, ratio = 4000, torch.zeros(1, height, width), (3 / 4, 4 / 3)
    torch.manual_seed(0)
    expected = torch.tensor([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(n)])
    got = draw(Crop(scale, ratio), n, height, width)
    assert (got >= 0).all() and (got[:, :2] + got[:, 2:] <= torch.tensor([height, width])).all()
    for measure in (
        lambda top, left, tall, wide: tall * wide,
        lambda top, left, tall, wide: wide / tall,
        lambda top, left, tall, wide: top / (height - tall).clamp(min=1),
        lambda top, left, tall, wide: left / (width - wide).clamp(min=1),
    ):
        assert ks_2samp(*(measure(*boxes.unbind(1)) for boxes in (got, expected))).pvalue > 0.001


def test_falls_back_to_the_centre():
    box = draw(Crop((1.0, 1.0), (3 / 4, 4 / 3)), 1, 30, 300)[0]
    assert box.tolist() == [0, 130, 30, 40]
