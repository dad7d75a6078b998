"""How fast are image files streamed? The training loader of a streamed set against timm's own loader.

    python benchmarks/streaming.py [--device cuda] [--workers 1 2] [--images 5000] [--round 1024] [--rounds 5]
        [--model NAME] [--json FILE]

JPEGs in ImageNet's look are made in a temporary folder: various sizes around 500x375, 4:2:0, quality 90. Both loaders
crop them to 224 at full resolution (bicubic), flip and normalise, without and with RandAugment, with the same number of
worker processes. A round is a part of an epoch, drawn anew; rounds are interleaved, so that a machine that slows down
slows both. First ours is measured against itself (A/A): the spread of that ratio is what a difference must exceed to
mean anything. CPU time of all processes stands beside wall time, for machines that others use too.

Then, with --model and the most workers: how many images a second does the device consume, in training steps of that
model in eager mode on one batch that lies there, and what does our loader feed it? Below 1 the device waits for images.
"""

from __future__ import annotations

import argparse
import difflib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import ImageDataset, create_loader

import headsweep.models  # noqa: F401 (registers the models)
from headsweep.config import (
    PROJECT_ROOT,
    AugmentationConfig,
    AugmentationOrder,
    DatasetConfig,
    DatasetName,
    DebugConfig,
    LoaderConfig,
)
from headsweep.data.datasets import open_splits
from headsweep.data.loader import TrainLoader
from headsweep.exit_codes import one_line_errors
from measuring import AA, Results, Samples, multiple, parser, positive, ratio, ready

BATCH = 64
CLASSES = 10
SIZES = [(500, 375)] * 8 + [(375, 500), (500, 333)] * 3 + [(333, 500), (500, 400), (400, 300), (640, 480), (800, 600)]


Pipeline = Callable[[int], None]  # runs the round of that number


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    device, results = ready(args), Results("streaming", args, args.device)
    with tempfile.TemporaryDirectory(prefix="streaming-") as root:
        write_images(Path(root), args.images)
        compare_loaders(results, Path(root), args, device)
        if args.model:
            feeding = ours(Path(root), recipe(), args.workers[-1], args.round, device)
            sides = {"consumed": consumer(args.model, args.round, device), "fed": feeding}
            compare(results, "fed / consumed", sides, args, model=args.model)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.set_defaults(threads=1)
    made.add_argument("--images", type=positive, default=5000, help="JPEGs to make")
    made.add_argument("--round", type=multiple(BATCH, "the images of a batch"), default=1024, help="images in a round")
    made.add_argument("--workers", type=positive, nargs="+", default=[1, 2], help="decoding processes, the most last")
    made.add_argument("--model", type=known_to_timm, help="that consumes them, by timm's name, e.g. cct_14_7x2_224")
    args = made.parse_args(words)
    if args.images < args.round:
        made.error(f"--images {args.images}: want at least --round {args.round}, which is drawn from them")
    return args


def known_to_timm(name: str) -> str:
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), 3, 0))
        raise argparse.ArgumentTypeError(f"{name!r}: unknown to timm; want one of its models, e.g. {near}")
    return name


def compare_loaders(results: Results, root: Path, args: argparse.Namespace, device: torch.device) -> None:
    plain, images = recipe(), args.round
    one, other = (ours(root, plain, args.workers[-1], images, device) for _ in range(2))
    compare(results, AA, {"ours": one, "ours again": other}, args)
    for workers in args.workers:
        for name, augmentation in (("plain", replace(plain, randaugment=None)), ("RandAugment", plain)):
            sides = {side: make(root, augmentation, workers, images, device) for side, make in LOADERS.items()}
            compare(results, f"ours / timm, {name}", sides, args, workers=workers)


def compare(results: Results, name: str, sides: dict[str, Pipeline], args: argparse.Namespace, **more: object) -> None:
    """Both sides, round by round; which goes first alternates. The first side is what the other is compared with."""
    wall: Samples = {side: [] for side in sides}
    cpu: Samples = {side: [] for side in sides}
    for number in range(args.rounds + 1):
        for side in sides if number % 2 else reversed(sides):
            before = time.perf_counter(), cpu_seconds()
            sides[side](number)
            if number:  # the first round starts the workers
                wall[side].append((time.perf_counter() - before[0]) * 1e3)
                cpu[side].append((cpu_seconds() - before[1]) * 1e3)
    first, second = sides
    pace = [args.round / statistics.median(wall[side]) * 1e3 for side in (second, first)]
    told = "".join(f", {key} {value}" for key, value in more.items())
    print(
        f"{name}{told}: {second} / {first}, {pace[0]:.0f} / {pace[1]:.0f} images/s = "
        f"{ratio(wall[first], wall[second])}; by CPU time {ratio(cpu[first], cpu[second])}",
        flush=True,
    )
    for kind, samples in (("wall", wall), ("cpu", cpu)):
        results.add(name, samples, kind=kind, images=args.round, **more)


def cpu_seconds() -> float:
    """Of this process and of the workers that live."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        user, system = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        total += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total


def recipe() -> AugmentationConfig:
    """paper_imagenet without what works on normalised images and batches."""
    plain = OmegaConf.load(PROJECT_ROOT / "conf/augmentation/paper_imagenet.yaml")
    changes = {"order": AugmentationOrder[plain.order], "erasing": 0.0, "mix_probability": 0.0}
    return AugmentationConfig(**{**plain, **changes})


def imagenet(root: Path) -> DatasetConfig:
    plain = OmegaConf.load(PROJECT_ROOT / "conf/dataset/imagenet.yaml")
    plain.root = str(root)
    return DatasetConfig(**{**plain, "name": DatasetName.imagenet, "num_classes": CLASSES, "validation": 0.0})


def ours(root: Path, augmentation: AugmentationConfig, workers: int, images: int, device: torch.device) -> Pipeline:
    dataset = imagenet(root)
    splits = open_splits(dataset, 0, LoaderConfig(workers, 0.0, None), DebugConfig(None, None, False))
    loader = TrainLoader(splits.train, dataset, augmentation, 0, BATCH, device, workers)

    def run(number: int) -> None:
        for _ in loader.epoch(number, first=len(loader) - images // BATCH):
            pass
        settle(device)

    return run


def settle(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Part(ImageDataset):
    """Images of a folder in random order, as many as a round has."""

    def __init__(self, root: Path, images: int) -> None:
        super().__init__(str(root / "train"))
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        while True:
            try:
                return super().__getitem__(int(torch.randint(super().__len__(), ())))
            except ValueError:  # RandAugment asked Pillow for 0 bits, about twice in 1,000 images
                continue


def timms(root: Path, augmentation: AugmentationConfig, workers: int, images: int, device: torch.device) -> Pipeline:
    dataset = imagenet(root)
    loader = create_loader(
        Part(root, images),
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

    def run(number: int) -> None:
        for _ in loader:
            pass
        settle(device)

    return run


LOADERS = {"timm": timms, "ours": ours}


def consumer(name: str, images: int, device: torch.device) -> Pipeline:
    """Training steps on images that are there; in bfloat16 on a GPU."""
    model = timm.create_model(name, num_classes=CLASSES).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    size = model.pretrained_cfg["input_size"][-1]
    batch, labels = torch.randn(BATCH, 3, size, size, device=device), torch.randint(CLASSES, (BATCH,), device=device)

    def run(number: int) -> None:
        for _ in range(images // BATCH):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(batch)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        settle(device)

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
    """Two parts of photographs, mixed, at another scale and with noise; a function of `number`. Its bytes."""
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
    """A random part of a photograph at `size` (width, height), perhaps mirrored; float64."""
    photo = Image.fromarray(photos()[draw.integers(2)])
    scale = draw.uniform(0.3, 0.8)
    width, height = int(photo.width * scale), int(photo.height * scale)
    left, top = draw.integers(photo.width - width), draw.integers(photo.height - height)
    cut = np.asarray(photo.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC))
    return (cut[:, ::-1] if draw.random() < 0.5 else cut).astype(np.float64)


if __name__ == "__main__":
    with one_line_errors():
        main()
