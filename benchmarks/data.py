"""How many augmented images a second? The paper's recipe on one core, headsweep against timm on PIL images.

    python benchmarks/data.py [--json FILE]

Rounds are interleaved, so that a machine that slows down slows both. First ours is measured against itself (A/A): the
spread of that ratio is what a difference must exceed to mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import Mixup, RandomResizedCropAndInterpolation, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torchvision import transforms

from headsweep.config import PROJECT_ROOT, AugmentationConfig, AugmentationOrder, DatasetConfig, DatasetName
from headsweep.data.loader import TrainLoader
from headsweep.data.sources import ResidentSource

BATCH = 256
IMAGES = 1024
CLASSES = 100
ROUNDS = 5
Pipeline = Callable[[int], None]  # runs one epoch


def tiles() -> np.ndarray:
    """Real images, (n, 32, 32, 3) uint8, cut from the photographs that ship with scikit-learn."""
    photos = load_sample_images().images
    cut = [p[y : y + 32, x : x + 32] for p in photos for y in range(0, 395, 17) for x in range(0, 608, 26)]
    return np.stack(cut[:IMAGES])


def paper() -> AugmentationConfig:
    plain = OmegaConf.load(PROJECT_ROOT / "conf/augmentation/paper.yaml")
    return AugmentationConfig(**{**plain, "order": AugmentationOrder[plain.order]})


def cifar100() -> DatasetConfig:
    plain = OmegaConf.load(PROJECT_ROOT / "conf/dataset/cifar100.yaml")
    plain.root = None
    return DatasetConfig(**{**plain, "name": DatasetName.cifar100})


def ours(images: np.ndarray, labels: torch.Tensor) -> Pipeline:
    source = ResidentSource(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)
    loader = TrainLoader(source, cifar100(), paper(), 0, BATCH, torch.device("cpu"), workers=0)

    def epoch(number: int) -> None:
        for _ in loader.epoch(number):
            pass

    return epoch


def guarded(augment: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], Image.Image]:
    """The RandAugment of timm, tried again when it asks Pillow for 0 bits."""

    def call(image: Image.Image) -> Image.Image:
        while True:
            try:
                return augment(image)
            except ValueError:
                continue

    return call


def timm_pil(images: np.ndarray, labels: torch.Tensor) -> Pipeline:
    recipe, dataset = paper(), cifar100()
    transform = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(recipe.flip),
            guarded(rand_augment_transform(recipe.randaugment, {"img_mean": (128, 128, 128)})),
            RandomResizedCropAndInterpolation(32, recipe.crop_scale, recipe.crop_ratio, "bicubic"),
            transforms.ToTensor(),
            transforms.Normalize(dataset.mean, dataset.std),
            RandomErasing(recipe.erasing, max_count=recipe.erasing_count, device="cpu"),
        ]
    )
    mix = Mixup(recipe.mixup, recipe.cutmix, prob=recipe.mix_probability, num_classes=CLASSES)
    pictures = [Image.fromarray(image) for image in images]

    def epoch(number: int) -> None:
        for rows in torch.randperm(len(pictures), generator=torch.Generator().manual_seed(number)).split(BATCH):
            mix(torch.stack([transform(pictures[row]) for row in rows.tolist()]), labels[rows])

    return epoch


def speeds(first: Pipeline, second: Pipeline) -> Iterator[tuple[float, float]]:
    """Images per second of both, round by round; which goes first alternates."""
    for pipeline in (first, second):
        pipeline(0)
    for number in range(1, ROUNDS + 1):
        order = (first, second) if number % 2 else (second, first)
        took = {}
        for place, pipeline in enumerate(order):
            start = time.perf_counter()
            pipeline(number)
            took[place] = IMAGES / (time.perf_counter() - start)
        yield (took[0], took[1]) if number % 2 else (took[1], took[0])


def compare(name: str, first: Pipeline, second: Pipeline) -> dict[str, object]:
    rounds = list(speeds(first, second))
    ratios = sorted(a / b for a, b in rounds)
    result = {
        "images_per_second": [statistics.median(column) for column in zip(*rounds, strict=True)],
        "ratio": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
    }
    print(f"{name}: {result}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    path = parser.parse_args().json
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    images = tiles()
    labels = torch.arange(len(images)) % CLASSES
    mine = ours(images, labels)
    figures = {
        "A/A, ours": compare("A/A, ours", mine, ours(images, labels)),
        "ours / timm": compare("ours / timm", mine, timm_pil(images, labels)),
    }
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
