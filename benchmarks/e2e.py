"""How long do whole runs take, and are they as good? The plain path against ours, seed by seed.

    python benchmarks/e2e.py [--seeds 5] [--epochs 10] [--device cuda] [--json FILE] [KEY=VALUE ...]

Both paths train the same configuration (the words are those of `python src/train.py`) from the same first weights with
the same schedule and evaluate each epoch. The plain one is benchmarks/plain.py: Pillow, timm and torchvision in a
DataLoader, a loop over branches, attention written out, torch's AdamW; float32, on a GPU under bfloat16 autocast. Ours
is what a run does, its checkpoints and spool included. They take turns, seed by seed. An A/A pair, ours twice with the
first seed, comes first: its accuracies must be equal to the bit on a CPU.

--images N trains on N crops of photographs with 100 arbitrary classes instead of the data set: enough images of 32x32
for the speed of a real set, whose accuracy says nothing.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images

from composed import compose
from headsweep.config import RunConfig
from headsweep.data.datasets import Splits, open_splits
from headsweep.data.loader import EvalLoader, TrainLoader
from headsweep.data.sources import ResidentSource
from headsweep.exit_codes import one_line_errors
from headsweep.models.build import model_of
from headsweep.tracking.run_folder import RunFolder, RunRecord
from headsweep.training.evaluation import evaluate
from headsweep.training.loop import Training
from headsweep.training.objective import objective
from headsweep.training.optimization import build_schedule, run_steps
from headsweep.training.ranks import Ranks
from measuring import AA, Results, parser, positive, ratio, ready, surroundings
from plain import PlainBatches, PlainModel, as_it_comes, plain_optimizer

USUAL = ("head=seqattn", "heads=4")
ENOUGH = 3  # seeds
SIDE, CLASSES, TEST = 32, 100, 1000  # of --images


@dataclass(frozen=True)
class Ended:
    """A run that has been trained."""

    seconds: float
    accuracy: float  # on the test split, in [0, 1]
    images_per_second: float  # of the last epoch's training


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    device = ready(args)
    run = configured(args)
    print(f"{surroundings()}; {args.epochs} epochs, {args.seeds} seeds, {' '.join(args.words or USUAL)}")
    results = Results("e2e", args, args.device)
    first = replace(run, seed=0)
    show(results, AA, [ours(first, device, args)], [ours(first, device, args)])
    plains, mine = [], []
    for seed in range(args.seeds):
        run = replace(first, seed=seed)
        turns = [(plains, plain), (mine, ours)]
        for ended, path in turns if seed % 2 else reversed(turns):
            ended.append(path(run, device, args))
    show(results, "plain / ours", plains, mine)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=0)
    made.add_argument("words", nargs="*", metavar="KEY=VALUE")
    made.add_argument("--seeds", type=positive, default=2)
    made.add_argument("--epochs", type=positive, default=3)
    made.add_argument("--workers", type=int, default=0, help="processes of the plain path's DataLoader")
    made.add_argument("--images", type=positive, help="train on so many parts of photographs")
    return made.parse_args(words)


def configured(args: argparse.Namespace) -> RunConfig:
    words = [*(args.words or USUAL), f"duration='{args.epochs} epochs'", f"device={args.device}"]
    if args.images:
        words += ["dataset=cifar100", "dataset.validation=0"]
    return compose(words)


def splits_of(run: RunConfig, args: argparse.Namespace) -> Splits:
    if not args.images:
        return open_splits(run.dataset, run.seed, run.loader, run.debug)
    return Splits(photographs(args.images, 0), None, photographs(TEST, 1))


def photographs(count: int, seed: int) -> ResidentSource:
    """Random parts of the photographs that ship with scikit-learn."""
    draw = np.random.default_rng(seed)
    photos = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)
    limits = (len(photos), photos.shape[2] - SIDE, photos.shape[3] - SIDE)
    places = [draw.integers(limit, size=count) for limit in limits]
    parts = [photos[n, :, y : y + SIDE, x : x + SIDE] for n, y, x in zip(*places, strict=True)]
    return ResidentSource(torch.stack(parts), torch.arange(count) % CLASSES)


def ours(run: RunConfig, device: torch.device, args: argparse.Namespace) -> Ended:
    """What sweep/one_run.py does, without a sweep."""
    splits = splits_of(run, args)
    started = time.perf_counter()
    batches = TrainLoader(splits.train, run.dataset, run.augmentation, run.seed, run.batch_size, device, 0)
    evaluations = {
        name: EvalLoader(source, run.dataset, run.batch_size, device, 0)
        for name, source in (("val", splits.validation), ("test", splits.test))
        if source is not None
    }
    with tempfile.TemporaryDirectory(prefix="headsweep-bench-") as scratch:
        folder = RunFolder(Path(scratch) / "run")
        folder.create(RunRecord("run", "group", "run", "sweep", run.seed, {}, {}, {}, {}), "")
        folder.claim()
        model = model_of(run)
        result = Training(run, model, batches, evaluations, folder, lambda progress: None, lambda: False)()
        *_, pace = (
            e.clock["images_per_second"] for e in folder.metrics_log.entries() if "images_per_second" in e.clock
        )
    return Ended(time.perf_counter() - started, result.metrics["test/top1"], pace)


def plain(run: RunConfig, device: torch.device, args: argparse.Namespace) -> Ended:
    """The same run, as upstream would train it."""
    as_it_comes()
    splits = splits_of(run, args)
    started = time.perf_counter()
    torch.manual_seed(run.seed)
    model = PlainModel(run).to(device)
    batches = PlainBatches(splits.train.images, splits.train.labels, run, device, args.workers)
    held_out = splits.validation or splits.test
    evaluated = [EvalLoader(source, run.dataset, run.batch_size, device, 0) for source in (held_out, splits.test)]
    optimizer = plain_optimizer(model, run)
    steps, warmup = run_steps(run, len(batches.loader))
    schedule = build_schedule(optimizer, run.schedule, steps, warmup)
    pace, step = 0.0, 0
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    for _ in range(math.ceil(steps / len(batches.loader))):
        begun = time.perf_counter()
        model.train()
        for images, targets in batches:
            schedule.step_update(step)
            with autocast:
                logits = model(images)
            loss = objective(logits, targets, 0.0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
        loss.item()
        pace = len(batches.loader) * run.batch_size / (time.perf_counter() - begun)
        evaluate(model, evaluated[0], autocast, Ranks())
    accuracy = evaluate(model, evaluated[1], autocast, Ranks()).metrics["top1"]
    return Ended(time.perf_counter() - started, accuracy, pace)


def show(results: Results, name: str, first: list[Ended], second: list[Ended]) -> None:
    sides = ("ours", "ours again") if name == AA else ("plain", "ours")
    both = dict(zip(sides, (first, second), strict=True))
    seconds = {side: [ended.seconds for ended in runs] for side, runs in both.items()}
    accuracy = {side: [ended.accuracy for ended in runs] for side, runs in both.items()}
    paces = {side: [ended.images_per_second for ended in runs] for side, runs in both.items()}
    results.add(name, seconds, "s", accuracy=accuracy, images_per_second=paces)
    for side in sides:
        print(
            f"{name:12} {side:10} {statistics.median(seconds[side]):7.1f} s a run, last epoch "
            f"{statistics.median(paces[side]):.0f} images/s, top-1 {100 * statistics.mean(accuracy[side]):.2f} "
            f"({100 * min(accuracy[side]):.2f} to {100 * max(accuracy[side]):.2f})"
        )
    print(f"{name:12} time: {ratio(*seconds.values())}; {verdict(sides, *accuracy.values())}", flush=True)


def verdict(sides: tuple[str, str], first: list[float], second: list[float]) -> str:
    """Whether the second path is as good, where there are seeds enough for a range to mean something."""
    if len(first) < ENOUGH:
        return f"{len(first)} seed(s) do not say whether {sides[1]} is as good"
    inside = min(first) <= statistics.mean(second) <= max(first)
    return f"mean accuracy of {sides[1]} is {'' if inside else 'NOT '}within the range of {sides[0]}"


if __name__ == "__main__":
    with one_line_errors():
        main()
