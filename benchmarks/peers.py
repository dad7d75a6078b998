"""Compare a sweep with timm's train.py in a shell loop, two at a time, on the same runs and the same machine.

    python benchmarks/peers.py --timm-train FILE [--sides published timm headsweep] [--precision float32 bfloat16]
        [--images 2000] [--epochs 3] [--rounds 1] [--records FOLDER]

FILE is train.py of timm's repository, which its wheel does not contain:

    git clone --depth 1 https://github.com/huggingface/pytorch-image-models

Nine runs of cct_2_3x2 (seqpool with 1, 4 and 8 heads, three seeds), batches of 64, AdamW, one CPU thread a run, two
runs at a time. Three sides:

    headsweep   a sweep
    timm        train.py, with the models of headsweep, which registers them with timm
    published   train.py, with the reference implementation (`reference.py`): a loop over branches, attention with
                explicit weights. It is what is trained without headsweep; float32 only

All have the same numbers of parameters, and read the same JPEGs of 32x32 pixels, made in a temporary folder. None
augments: timm's RandAugment ends in an error of Pillow. All evaluate the test images after each epoch and keep a
checkpoint.

A round trains all runs five times: all sides in float32, and timm and headsweep in bfloat16, which timm has as `--amp
--amp-dtype bfloat16`. Four ratios: published / headsweep, timm / headsweep in each precision, and timm in float32 /
headsweep in bfloat16, whose sides compute different things: it is what a user gains who changes both.

Seconds are those of whole commands, start and imports included: measure on an idle machine. Without FILE nothing is
measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from headsweep.exit_codes import one_line_errors
from measuring import Benchmark, Samples, parser, ratio
from sweep import ONE_THREAD, SLOTS, TRAIN, slots

BATCH, CLASSES, SIZE = 64, 10, 32
HEADS, SEEDS = (1, 4, 8), (0, 1, 2)
TEST_SHARE = 0.25  # test images, relative to training images
RATE, DECAY = "5e-4", "0.06"
# timm's train.py after a module that registers the models: docs/models.md
WITH_MODELS = (
    "import runpy, sys; sys.path.insert(0, {folder!r}); import {module}; del sys.argv[0]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
PRECISIONS = ("float32", "bfloat16")
SIDES = {"published": PRECISIONS[:1], "timm": PRECISIONS, "headsweep": PRECISIONS}
RATIOS = {
    "published / headsweep, float32": {"published": "published float32", "headsweep": "headsweep float32"},
    "timm / headsweep, float32": {"timm": "timm float32", "headsweep": "headsweep float32"},
    "timm / headsweep, bfloat16": {"timm": "timm bfloat16", "headsweep": "headsweep bfloat16"},
    "timm float32 / headsweep bfloat16": {side: side for side in ("timm float32", "headsweep bfloat16")},
}  # name -> sides by the names that they have in this row
Side = Callable[[Path], None]  # takes an empty folder for its output


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    if args.timm_train is None:
        print("peers: skipped; --timm-train=FILE or TIMM_TRAIN=FILE names train.py of timm's repository", flush=True)
        return
    bench = Benchmark("peers", args)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        images = Path(folder) / "images"
        write_images(images, args.images)
        trains = {"published": partial(timm_loop, published=True), "timm": timm_loop, "headsweep": sweep}
        sides = {side: partial(trains[name], args, precision, images) for side, name, precision in chosen(args)}
        compare(bench, sides, Path(folder))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    script = os.environ.get("TIMM_TRAIN")
    made.add_argument(
        "--timm-train",
        type=Path,
        metavar="FILE",
        default=Path(script) if script else None,
        help="train.py of timm's repository; by default $TIMM_TRAIN",
    )
    made.add_argument("--sides", choices=list(SIDES), nargs="+", default=list(SIDES))
    made.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    made.add_argument("--images", type=int, default=2000, help="for training")
    made.add_argument("--epochs", type=int, default=3)
    made.add_argument("--heads", type=int, nargs="+", default=HEADS)
    made.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    made.add_argument("--rounds", type=int, default=1)
    args = made.parse_args(words)
    if args.timm_train is not None and not args.timm_train.is_file():
        made.error(f"--timm-train={args.timm_train}: expected train.py of timm's repository, found no such file")
    sides = {side for side, *_ in chosen(args)}
    if not any(sides >= set(row.values()) for row in RATIOS.values()):
        made.error(
            f"--sides={','.join(args.sides)} --precision={','.join(args.precision)}: expected both sides of a ratio, "
            "such as --sides published headsweep --precision float32"
        )
    return args


def chosen(args: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Return each side of a round, its program and its precision."""
    pairs = ((name, precision) for precision in args.precision for name in args.sides if precision in SIDES[name])
    return [(f"{name} {precision}", name, precision) for name, precision in pairs]


def write_images(root: Path, count: int) -> None:
    """Write JPEGs of smooth noise: a class is a colour."""
    draws = np.random.default_rng(0)
    for split, images in (("train", count), ("test", round(count * TEST_SHARE))):
        for number in range(images):
            path = root / split / str(number % CLASSES) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = draws.integers(0, 128, (8, 8, 3)) + 12 * (number % CLASSES) * np.array([0, 0, 1])
            Image.fromarray(noise.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path)


def compare(bench: Benchmark, sides: dict[str, Side], scratch: Path) -> None:
    """Run all sides, round by round, each round from another side, and add a row for each ratio."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(bench.args.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = time.monotonic()
            sides[name](scratch / f"{name}-{number}")
            wall[name].append(time.monotonic() - started)
            print(f"{name:18} {wall[name][-1]:8.1f} s", flush=True)
    for name, row in RATIOS.items():
        if wall.keys() >= set(row.values()):
            add(bench, name, {shown: wall[side] for shown, side in row.items()})


def add(bench: Benchmark, name: str, row: Samples) -> None:
    bench.add(name, row, "s")
    print(f"{name}: {ratio(*row.values())}", flush=True)


def timm_loop(args: argparse.Namespace, precision: str, images: Path, output: Path, *, published: bool = False) -> None:
    model, module = ("published_cct_2_3x2_32", "published") if published else ("cct_2_3x2_32", "headsweep.models")
    program = WITH_MODELS.format(folder=str(Path(__file__).resolve().parent), module=module)
    words = [sys.executable, "-c", program, str(args.timm_train), "--model", model, *timm_options(args, images, output)]
    words += ["--amp", "--amp-dtype", "bfloat16"] if precision == "bfloat16" else []
    cells = list(product(args.heads, args.seeds))
    with ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(lambda cell: command([*words, *timm_cell(*cell)]), cells))


def timm_cell(heads: int, seed: int) -> list[str]:
    return ["--model-kwargs", f"heads={heads}", "--seed", str(seed), "--experiment", f"{heads}-{seed}"]


def timm_options(args: argparse.Namespace, images: Path, output: Path) -> list[str]:
    options = {
        "data-dir": images,
        "train-split": "train",
        "val-split": "test",
        "num-classes": CLASSES,
        "device": "cpu",
        "workers": 1,
        "batch-size": BATCH,
        "opt": "adamw",
        "lr": RATE,
        "weight-decay": DECAY,
        "sched": "cosine",
        "warmup-epochs": 0,
        "epochs": args.epochs,
        "smoothing": 0,
        "output": output,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [*words, "--no-aug", "--no-prefetcher"]


def sweep(args: argparse.Namespace, precision: str, images: Path, output: Path) -> None:
    options = {
        "model": "cct_2_3x2",
        "head": "seqpool",
        "heads": ",".join(map(str, args.heads)),
        "seed": ",".join(map(str, args.seeds)),
        "dataset": "imagefolder",
        "dataset.root": images,
        "dataset.validation": 0,
        "augmentation": "none",
        "batch_size": BATCH,
        "optimizer": "adamw",
        "optimizer.lr": RATE,
        "optimizer.weight_decay": DECAY,
        "schedule.warmup": "'0 epochs'",
        "duration": f"'{args.epochs} epochs'",
        "precision": precision,
        "paths.output": output,
    }
    command([*TRAIN, "-m", *slots(SLOTS), *(f"{name}={value}" for name, value in options.items())])


def command(words: Sequence[str]) -> None:
    """Run it with one thread. Raises CalledProcessError, after its last lines, if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        print("\n".join(done.stderr.splitlines()[-10:]), file=sys.stderr)
        done.check_returncode()


if __name__ == "__main__":
    with one_line_errors():
        main()
