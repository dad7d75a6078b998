"""The data set `squares`: filled and hollow squares, drawn by a generator of fixed seed."""

import numpy as np
import torch

from headsweep.config import DatasetConfig
from headsweep.data.datasets import Loaded, resident
from headsweep.data.sources import ResidentSource

TRAIN, TEST = 512, 128  # images


def load(dataset: DatasetConfig) -> Loaded:
    """Return the sources of training, validation (None: held out of training) and test images."""
    return _split(dataset, 0, TRAIN), None, _split(dataset, 1, TEST)


def _split(dataset: DatasetConfig, seed: int, count: int) -> ResidentSource:
    draw = np.random.default_rng(seed)
    labels = draw.integers(2, size=count)
    return resident(np.stack([_square(draw, label) for label in labels]), torch.from_numpy(labels), dataset)


def _square(draw: np.random.Generator, is_hollow: int) -> np.ndarray:  # 16x16 uint8
    image = np.zeros((16, 16), np.uint8)
    side = draw.integers(5, 12)
    row, column = draw.integers(0, 16 - side, size=2)
    image[row : row + side, column : column + side] = 255
    if is_hollow:
        image[row + 1 : row + side - 1, column + 1 : column + side - 1] = 0
    return image
