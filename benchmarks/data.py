"""Measure augmented images per second: the paper's recipe in headsweep and in timm on Pillow images.

    python benchmarks/data.py [--device cuda] [--batches 4] [--rounds 5] [--records FOLDER]

On one core of the CPU; with --device cuda headsweep augments on the GPU. An A/A pair comes first. Then `timm` (Pillow,
on the CPU) and `headsweep` (the loader of a run), and last the implementations in headsweep: `grouped` operations and
`static` shapes, of which a run uses one, and on a GPU also static shapes in fused kernels (`compiled`, which no run
uses; whether its images are equal is printed).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from itertools import count

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from timm.data import Mixup

from headsweep.config import RunConfig
from headsweep.data.batches import PIXELS_AT_ONCE, GroupedMaker, Maker, RecordedMaker
from headsweep.data.loader import TrainLoader
from headsweep.data.sources import ResidentSource
from headsweep.exit_codes import one_line_errors
from measuring import AA, Benchmark, Step, compose, parser
from reference import PillowImages, pillow_transform

BATCH = 256
CLASSES = 100


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    bench = Benchmark("data", args)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    images, device = args.batches * BATCH, bench.device
    run = compose(["dataset=cifar100", "augmentation=paper"])
    source = resident(images)
    bench.measure(
        AA, {side: headsweep(run, source, device) for side in ("headsweep", "headsweep again")}, images=images
    )
    bench.measure(
        "headsweep / timm",
        {"timm": timm_loader(run, source), "headsweep": headsweep(run, source, device)},
        images=images,
    )
    makers = {"grouped": grouped(run, source, device), "static": static(run, source, device)}
    if device.type == "cuda":
        print(f"compiled produces equal images: {equal_images(run, source, device)}")
        makers["compiled"] = compiled(run, source, device)
    sides = {name: headsweep(run, source, device, maker) for name, maker in makers.items()}
    bench.measure("implementations", sides, images=images)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.set_defaults(threads=1)
    made.add_argument("--batches", type=int, help="of 256 images, in a round: 4; on a GPU 64")
    args = made.parse_args(words)
    args.batches = args.batches or (64 if args.device == "cuda" else 4)
    return args


def resident(images: int) -> ResidentSource:
    """Real images of 32x32, cut from the photographs that ship with scikit-learn."""
    photos = load_sample_images().images
    cut = np.stack([p[y : y + 32, x : x + 32] for p in photos for y in range(0, 395, 17) for x in range(0, 608, 26)])
    rows = torch.arange(images) % len(cut)
    return ResidentSource(torch.from_numpy(cut).permute(0, 3, 1, 2)[rows].contiguous(), rows % CLASSES)


def headsweep(run: RunConfig, source: ResidentSource, device: torch.device, maker: Maker | None = None) -> Step:
    loader = TrainLoader(source, run.dataset, run.augmentation, 0, BATCH, device, workers=0)
    loader.maker = maker or loader.maker
    epochs = count()

    def epoch() -> None:
        for _ in loader.epoch(next(epochs)):
            pass

    return epoch


def grouped(run: RunConfig, source: ResidentSource, device: torch.device) -> GroupedMaker:
    return GroupedMaker(source, run.dataset, run.augmentation, device, 0, torch.arange(BATCH), at_once(source))


def static(run: RunConfig, source: ResidentSource, device: torch.device) -> RecordedMaker:
    return RecordedMaker(source, run.dataset, run.augmentation, device, torch.arange(BATCH), at_once(source))


def at_once(source: ResidentSource) -> int:
    return PIXELS_AT_ONCE // (BATCH * source.images[0, 0].numel())


def compiled(run: RunConfig, source: ResidentSource, device: torch.device) -> RecordedMaker:
    """With the rounding of eager mode, by the option that this torch has for it."""
    maker = static(run, source, device)
    known = torch._inductor.list_options()
    options = {"numerics": "strict_pointwise"} if "numerics" in known else {"emulate_precision_casts": True}
    maker.recorded.function = torch.compile(maker.recorded.function, fullgraph=True, dynamic=False, options=options)
    return maker


def equal_images(run: RunConfig, source: ResidentSource, device: torch.device) -> bool:
    loader = TrainLoader(source, run.dataset, run.augmentation, 0, BATCH, device, workers=0)
    made = []
    for maker in (static(run, source, device), compiled(run, source, device)):
        loader.maker = maker
        made.append(next(loader.epoch(0)).images)
    return torch.equal(*made)


def timm_loader(run: RunConfig, source: ResidentSource) -> Step:
    recipe = run.augmentation
    mix = Mixup(recipe.mixup, recipe.cutmix, prob=recipe.mix_probability, num_classes=CLASSES)
    dataset = PillowImages(source.images, source.labels, pillow_transform(recipe, run.dataset))
    epochs = count()

    def epoch() -> None:
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(next(epochs)))
        for rows in order.split(BATCH):
            images, labels = zip(*(dataset[row] for row in rows.tolist()), strict=True)
            mix(torch.stack(images), torch.stack(labels))

    return epoch


if __name__ == "__main__":
    with one_line_errors():
        main()
