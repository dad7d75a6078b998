"""How many augmented images a second? The paper's recipe, headsweep against timm on PIL images.

    python benchmarks/data.py [--device cuda] [--images N] [--rounds 5] [--json FILE]

One core of the CPU, and with --device cuda a GPU for ours. Sides take turns within a round, so that a machine that gets
slower slows all; an A/A pair (ours twice) comes first, and the spread of its ratio is what a difference must exceed to
mean anything. Sides: `ours` (what training gets on the device), `timm` (Pillow, on the CPU), and ours by way of
`grouped` operations or `static` shapes, whichever it is not; on a GPU also `compiled`, which is static shapes in fused
kernels (not what training gets: see whether its images are equal, and what it would save). Prints images per second,
ratios within a round, and on a GPU what a batch takes of a step at the speeds that we aim at.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from itertools import count

import numpy as np
import torch
from omegaconf import OmegaConf
from sklearn.datasets import load_sample_images
from timm.data import Mixup

from headsweep.config import PROJECT_ROOT, AugmentationConfig, AugmentationOrder, DatasetConfig, DatasetName
from headsweep.data.batches import PIXELS_AT_ONCE, GroupedMaker, Maker, RecordedMaker
from headsweep.data.loader import TrainLoader
from headsweep.data.sources import ResidentSource
from headsweep.exit_codes import one_line_errors
from measuring import AA, Results, Step, interleaved, multiple, parser, ratio, ready, surroundings
from plain import Pictures, pil_transform

BATCH = 256
CLASSES = 100
AIMS = 20_000, 32_000  # images a second of a training step


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    device, results = ready(args), Results("data", args, args.device)
    source = resident(args.images)
    print(f"{surroundings()}; {args.images} images a round, {args.rounds} rounds")
    measure(results, AA, {"ours": ours(source, device), "ours again": ours(source, device)}, args, device)
    measure(results, "ours / timm", {"timm": timm_pil(source), "ours": ours(source, device)}, args, device)
    sides = {
        "grouped": ours(source, device, grouped(source, device)),
        "static": ours(source, device, static(source, device)),
    }
    if device.type == "cuda":
        print(f"compiled makes the same bytes: {same_bytes(source, device)}")
        sides["compiled"] = ours(source, device, compiled(source, device))
    measure(results, "ways", sides, args, device)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.set_defaults(threads=1)
    made.add_argument("--images", type=multiple(BATCH, "the images of a batch"), help="1,024; on a GPU 16,384")
    args = made.parse_args(words)
    args.images = args.images or (16_384 if args.device == "cuda" else 1024)
    return args


def measure(
    results: Results, name: str, sides: dict[str, Step], args: argparse.Namespace, device: torch.device
) -> None:
    took = interleaved(sides, args.rounds, device)
    batches = args.images // BATCH
    first = next(iter(sides))
    for kind, samples in took._asdict().items():
        for side, times in samples.items():
            batch = statistics.median(times) / batches
            shares = ", ".join(f"{batch * aim / BATCH / 10:.1f} % of a step at {aim:,} images/s" for aim in AIMS)
            against = f", {ratio(samples[first], times)} times {first}" if side != first else ""
            print(
                f"{name}, {kind}: {side} {batches * BATCH / statistics.median(times) * 1e3:,.0f} images/s{against}"
                + (f"; {batch:.2f} ms a batch, {shares}" if device.type == "cuda" and side != "timm" else ""),
                flush=True,
            )
        results.add(name, samples, kind=kind, images=batches * BATCH)


def resident(images: int) -> ResidentSource:
    """Real images of 32x32, cut from the photographs that ship with scikit-learn."""
    photos = load_sample_images().images
    cut = np.stack([p[y : y + 32, x : x + 32] for p in photos for y in range(0, 395, 17) for x in range(0, 608, 26)])
    rows = torch.arange(images) % len(cut)
    return ResidentSource(torch.from_numpy(cut).permute(0, 3, 1, 2)[rows].contiguous(), rows % CLASSES)


def paper() -> AugmentationConfig:
    plain = OmegaConf.load(PROJECT_ROOT / "conf/augmentation/paper.yaml")
    return AugmentationConfig(**{**plain, "order": AugmentationOrder[plain.order]})


def cifar100() -> DatasetConfig:
    plain = OmegaConf.load(PROJECT_ROOT / "conf/dataset/cifar100.yaml")
    plain.root = None
    return DatasetConfig(**{**plain, "name": DatasetName.cifar100})


def ours(source: ResidentSource, device: torch.device, maker: Maker | None = None) -> Step:
    loader = TrainLoader(source, cifar100(), paper(), 0, BATCH, device, workers=0)
    loader.maker = maker or loader.maker
    epochs = count()

    def epoch() -> None:
        for _ in loader.epoch(next(epochs)):
            pass

    return epoch


def grouped(source: ResidentSource, device: torch.device) -> GroupedMaker:
    return GroupedMaker(source, cifar100(), paper(), device, 0, torch.arange(BATCH), at_once(source))


def static(source: ResidentSource, device: torch.device) -> RecordedMaker:
    return RecordedMaker(source, cifar100(), paper(), device, torch.arange(BATCH), at_once(source))


def at_once(source: ResidentSource) -> int:
    return PIXELS_AT_ONCE // (BATCH * source.images[0, 0].numel())


def compiled(source: ResidentSource, device: torch.device) -> RecordedMaker:
    """Told to compute as eager mode does, where this torch can be told."""
    maker = static(source, device)
    known = torch._inductor.list_options()
    options = {"numerics": "strict_pointwise"} if "numerics" in known else {"emulate_precision_casts": True}
    maker.recorded.function = torch.compile(maker.recorded.function, fullgraph=True, dynamic=False, options=options)
    return maker


def same_bytes(source: ResidentSource, device: torch.device) -> bool:
    loader = TrainLoader(source, cifar100(), paper(), 0, BATCH, device, workers=0)
    made = []
    for maker in (static(source, device), compiled(source, device)):
        loader.maker = maker
        made.append(next(loader.epoch(0)).images)
    return torch.equal(*made)


def timm_pil(source: ResidentSource) -> Step:
    recipe = paper()
    mix = Mixup(recipe.mixup, recipe.cutmix, prob=recipe.mix_probability, num_classes=CLASSES)
    pictures = Pictures(source.images, source.labels, pil_transform(recipe, cifar100()))
    epochs = count()

    def epoch() -> None:
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(next(epochs)))
        for rows in order.split(BATCH):
            images, labels = zip(*(pictures[row] for row in rows.tolist()), strict=True)
            mix(torch.stack(images), torch.stack(labels))

    return epoch


if __name__ == "__main__":
    with one_line_errors():
        main()
