"""Time whole runs and compare their accuracy, seed by seed: the reference implementation and headsweep.

    python benchmarks/e2e.py [--seeds 5] [--epochs 10] [--device cuda] [--records FOLDER] [KEY=VALUE ...]

Both train the same configuration (overrides as of `python src/train.py`) from the same initial weights with the same
schedule, and evaluate each epoch. The reference is benchmarks/reference.py, in float32; on a GPU under bfloat16
autocast. headsweep does what a run does, with checkpoints and metrics log. An A/A pair, headsweep twice with the first
seed, comes first: on a CPU its accuracies must be equal to the bit.

--images N trains on N crops of photographs with 100 arbitrary classes instead of the data set, which is enough for the
speed of a real set of 32x32; the accuracy is meaningless. The record is then named `upstream`.
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

from headsweep.config import RunConfig
from headsweep.data.datasets import Splits, open_splits
from headsweep.data.loader import EvalLoader, TrainLoader
from headsweep.data.sources import ResidentSource
from headsweep.exit_codes import one_line_errors
from headsweep.models.build import model_of
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord
from headsweep.training.evaluation import evaluate
from headsweep.training.loop import Training
from headsweep.training.objective import objective
from headsweep.training.optimization import build_schedule, run_steps
from headsweep.training.ranks import Ranks
from measuring import AA, Benchmark, compose, parser, ratio
from reference import ReferenceBatches, default_determinism, reference_model, reference_optimizer

DEFAULT = ("head=seqattn", "heads=4")
SIDE, CLASSES, TEST = 32, 100, 1000  # of --images


@dataclass(frozen=True)
class Outcome:
    """What is measured of a trained run."""

    seconds: float
    accuracy: float  # on the test split, in [0, 1]
    images_per_second: float  # of the last epoch's training


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    run = replace(configured(args), seed=0)
    bench = Benchmark("upstream" if args.images else "e2e", args)
    pair = {side: [headsweep(run, bench.device, args)] for side in ("headsweep", "headsweep again")}
    add(bench, AA, pair)
    outcomes: dict[str, list[Outcome]] = {"reference": [], "headsweep": []}
    turns = [("reference", reference), ("headsweep", headsweep)]
    for seed in range(args.seeds):
        for side, train in turns if seed % 2 else reversed(turns):
            outcomes[side].append(train(replace(run, seed=seed), bench.device, args))
    add(bench, "reference / headsweep", outcomes)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=1)
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    made.add_argument("--seeds", type=int, default=2)
    made.add_argument("--epochs", type=int, default=3)
    made.add_argument("--workers", type=int, default=0, help="processes of the reference's DataLoader")
    made.add_argument("--images", type=int, help="train on so many parts of photographs")
    return made.parse_args(words)


def add(bench: Benchmark, name: str, outcomes: dict[str, list[Outcome]]) -> None:
    """Add the row and print it."""
    seconds, accuracy, pace = (
        {side: [getattr(outcome, key) for outcome in runs] for side, runs in outcomes.items()}
        for key in ("seconds", "accuracy", "images_per_second")
    )
    bench.add(name, seconds, "s", accuracy=accuracy, images_per_second=pace)
    for side, tops in accuracy.items():
        print(
            f"{name:22} {side:16} {statistics.median(seconds[side]):7.1f} s per run, last epoch "
            f"{statistics.median(pace[side]):,.0f} images/s, top-1 {100 * statistics.mean(tops):.2f} "
            f"({100 * min(tops):.2f} to {100 * max(tops):.2f})"
        )
    print(f"{name:22} time: {ratio(*seconds.values())}", flush=True)


def configured(args: argparse.Namespace) -> RunConfig:
    words = [*(args.overrides or DEFAULT), f"duration='{args.epochs} epochs'", f"device={args.device}"]
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


def headsweep(run: RunConfig, device: torch.device, args: argparse.Namespace) -> Outcome:
    """Train it as a run of a sweep, without a sweep."""
    splits = splits_of(run, args)
    started = time.perf_counter()
    batches = TrainLoader(splits.train, run.dataset, run.augmentation, run.seed, run.batch_size, device, 0)
    evaluations = {
        name: EvalLoader(source, run.dataset, run.batch_size, device, 0)
        for name, source in (("val", splits.validation), ("test", splits.test))
        if source is not None
    }
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = RunFolder(Path(scratch) / "run")
        folder.create(RunRecord("run", "group", "run", "sweep", run.seed, {}, {}, {}, {}), "")
        folder.claim()
        model = model_of(run)
        result = Training(run, model, batches, evaluations, folder, lambda progress: None, lambda: False)()
        *_, pace = (
            e.clock["images_per_second"] for e in folder.metrics_log.entries() if "images_per_second" in e.clock
        )
    return Outcome(time.perf_counter() - started, result.metrics["test/top1"], pace)


def reference(run: RunConfig, device: torch.device, args: argparse.Namespace) -> Outcome:
    """Train the same run as upstream would."""
    default_determinism()
    splits = splits_of(run, args)
    started = time.perf_counter()
    torch.manual_seed(run.seed)
    model = reference_model(run).to(device)
    batches = ReferenceBatches(splits.train.images, splits.train.labels, run, device, args.workers)
    held_out = splits.validation or splits.test
    evaluated = [EvalLoader(source, run.dataset, run.batch_size, device, 0) for source in (held_out, splits.test)]
    optimizer = reference_optimizer(model, run)
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
        loss.item()  # waits for the device
        pace = len(batches.loader) * run.batch_size / (time.perf_counter() - begun)
        evaluate(model, evaluated[0], autocast, Ranks())
    accuracy = evaluate(model, evaluated[1], autocast, Ranks()).metrics["top1"]
    return Outcome(time.perf_counter() - started, accuracy, pace)


if __name__ == "__main__":
    with one_line_errors():
        main()
