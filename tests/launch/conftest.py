"""A data set that is streamed: true JPEG files."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image


@pytest.fixture(scope="session")
def streamed(tmp_path_factory) -> list[str]:
    """The overrides for 128 training and 32 test images of 4 classes, tiles of a photograph, with two workers."""
    root = tmp_path_factory.mktemp("tiles")
    photo = load_sample_image("china.jpg")[:416]
    tiles = photo.reshape(26, 16, 40, 16, 3).swapaxes(1, 2).reshape(-1, 16, 16, 3)
    for number, tile in enumerate(np.ascontiguousarray(tiles[:160])):
        folder = root / ("train" if number < 128 else "test") / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile).save(folder / f"{number:03}.jpg")
    where = ["dataset=imagefolder", f"dataset.root={root}", "dataset.image_size=16"]
    return [*where, "loader.resident_gib=0", "loader.workers=2"]
