"""Compare the loader of streamed image files with timm's loader.

    python benchmarks/streaming.py [--device cuda] [--workers 1 2] [--images 5000] [--batches 16] [--rounds 5]
        [--model NAME] [--records FOLDER]

JPEGs that resemble ImageNet's are made in a temporary folder: various sizes around 500x375, 4:2:0, quality 90. Both
loaders crop them to 224 at full resolution (bicubic), flip and normalize, without and with RandAugment, with the same
number of worker processes. A round is a part of an epoch, drawn anew. An A/A pair comes first. CPU time is that of all
processes.

With --model and the most workers: images/s that training steps of the model consume (eager mode, one batch that stays
on the device), and images/s that the loader supplies. Below 1 the device waits for images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import ImageDataset, create_loader

from headsweep import models  # noqa: F401 (registers the models with timm)
from headsweep.config import AugmentationConfig, DatasetConfig, DebugConfig, LoaderConfig
from headsweep.data.datasets import open_splits
from headsweep.data.loader import TrainLoader
from headsweep.exit_codes import one_line_errors
from measuring import AA, Benchmark, Step, compose, parser

BATCH = 64
CLASSES = 10
SIZES = [(500, 375)] * 8 + [(375, 500), (500, 333)] * 3 + [(333, 500), (500, 400), (400, 300), (640, 480), (800, 600)]


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    bench = Benchmark("streaming", args)
    steps = consumer(args.model, args.batches, bench.device) if args.model else None
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        root = Path(folder)
        write_images(root, args.images)
        compare_loaders(bench, root)
        if steps:
            supply = headsweep(root, recipe(), args.workers[-1], args.batches, bench.device)
            measure(bench, "supplied / consumed", {"consumed": steps, "supplied": supply}, model=args.model)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.set_defaults(threads=1)
    made.add_argument("--images", type=int, default=5000, help="JPEGs to make")
    made.add_argument("--batches", type=int, default=16, help="of 64 images, in a round")
    made.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="decoding processes, the most last")
    made.add_argument("--model", help="consumer, by timm's name, e.g. cct_14_7x2_224")
    args = made.parse_args(words)
    if args.images < args.batches * BATCH:
        made.error(f"--images={args.images}: expected at least the {args.batches * BATCH} images of --batches")
    return args


def compare_loaders(bench: Benchmark, root: Path) -> None:
    plain, batches, device = recipe(), bench.args.batches, bench.device
    most = bench.args.workers[-1]
    pair = {side: headsweep(root, plain, most, batches, device) for side in ("headsweep", "headsweep again")}
    measure(bench, AA, pair)
    for workers in bench.args.workers:
        for name, augmentation in (("no RandAugment", replace(plain, randaugment=None)), ("RandAugment", plain)):
            loaders = {"timm": timm_loader, "headsweep": headsweep}
            sides = {side: make(root, augmentation, workers, batches, device) for side, make in loaders.items()}
            measure(bench, f"headsweep / timm, {name}", sides, workers=workers)


def measure(bench: Benchmark, name: str, sides: dict[str, Step], **more: object) -> None:
    bench.measure(name, sides, cpu_seconds, images=bench.args.batches * BATCH, **more)


def cpu_seconds() -> float:
    """Of this process and of its living workers."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        user, system = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        total += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total


def recipe() -> AugmentationConfig:
    """paper_imagenet without the operations on normalized images and on batches."""
    augmentation = compose(["augmentation=paper_imagenet", "dataset=imagenet", "dataset.root=x"]).augmentation
    return replace(augmentation, erasing=0.0, mix_probability=0.0)


def imagenet(root: Path) -> DatasetConfig:
    dataset = compose(["dataset=imagenet", f"dataset.root={root}"]).dataset
    return replace(dataset, num_classes=CLASSES, validation=0.0)


def headsweep(root: Path, augmentation: AugmentationConfig, workers: int, batches: int, device: torch.device) -> Step:
    dataset = imagenet(root)
    splits = open_splits(dataset, 0, LoaderConfig(workers, 0.0, None), DebugConfig(None, None, False))
    loader = TrainLoader(splits.train, dataset, augmentation, 0, BATCH, device, workers)
    epochs = count()

    def run() -> None:
        for _ in loader.epoch(next(epochs), first=len(loader) - batches):
            pass

    return run


class PartOfFolder(ImageDataset):
    """`images` images of a folder, drawn at random."""

    def __init__(self, root: Path, images: int) -> None:
        super().__init__(str(root / "train"))
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        while True:
            try:
                return super().__getitem__(int(torch.randint(super().__len__(), ())))
            except ValueError:  # timm's RandAugment passes Pillow 0 bits, about twice in 1,000 images
                continue


def timm_loader(root: Path, augmentation: AugmentationConfig, workers: int, batches: int, device: torch.device) -> Step:
    dataset = imagenet(root)
    loader = create_loader(
        PartOfFolder(root, batches * BATCH),
        input_size=dataset.image_size,
        batch_size=BATCH,
        is_training=True,
        scale=tuple(augmentation.crop_scale),
        ratio=tuple(augmentation.crop_ratio),
        hflip=augmentation.flip,
        color_jitter=0.0,
        auto_augment=augmentation.randaugment,
        interpolation="bicubic",
        mean=tuple(dataset.mean),
        std=tuple(dataset.std),
        num_workers=workers,
        device=device,
    )

    def run() -> None:
        for _ in loader:
            pass

    return run


def consumer(name: str, batches: int, device: torch.device) -> Step:
    """Training steps on images that stay on the device; in bfloat16 on a GPU."""
    model = timm.create_model(name, num_classes=CLASSES).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    size = model.pretrained_cfg["input_size"][-1]
    images, labels = torch.randn(BATCH, 3, size, size, device=device), torch.randint(CLASSES, (BATCH,), device=device)

    def run() -> None:
        for _ in range(batches):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(images)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def write_images(root: Path, count: int) -> None:
    """Write <root>/{train,val}/<class>/*.JPEG; all in train, one of each class in val too."""
    for split in ("train", "val"):
        for label in range(CLASSES):
            (root / split / f"n{label:08}").mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        sizes = list(pool.map(write_image, [root] * count, range(count), chunksize=32))
    print(f"{count} JPEGs, {statistics.mean(sizes) / 1000:.0f} kB on average", flush=True)


def write_image(root: Path, number: int) -> int:
    """Two parts of photographs, mixed, rescaled and with noise; a function of `number`. Returns its size in bytes."""
    draw = np.random.default_rng(number)
    size = SIZES[draw.integers(len(SIZES))]
    share = draw.uniform(0.5, 1)
    mixed = share * part(draw, size) + (1 - share) * part(draw, size)
    noisy = mixed + draw.normal(0, draw.uniform(2, 7), (*mixed.shape[:2], 1))
    name = f"n{number % CLASSES:08}/{number}.JPEG"
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    for split in ("train", "val") if number < CLASSES else ("train",):
        image.save(root / split / name, quality=90, subsampling="4:2:0")
    return (root / "train" / name).stat().st_size


@cache
def photos() -> list[np.ndarray]:
    return load_sample_images().images


def part(draw: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A random part of a photograph at `size` (width, height), mirrored in half of the cases; float64."""
    photo = Image.fromarray(photos()[draw.integers(2)])
    scale = draw.uniform(0.3, 0.8)
    width, height = int(photo.width * scale), int(photo.height * scale)
    left, top = draw.integers(photo.width - width), draw.integers(photo.height - height)
    cut = np.asarray(photo.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC))
    return (cut[:, ::-1] if draw.random() < 0.5 else cut).astype(np.float64)


if __name__ == "__main__":
    with one_line_errors():
        main()
