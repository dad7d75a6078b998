"""Measure everything that needs a GPU, within ten minutes, and write RESULTS.md.

    python benchmarks/gpu.py [--minutes 10] [--tiny] [--only PART ...]

Calibration first; then torch's compile cache is filled by all cells at once; then the step, whole runs of 50,000 images
against upstream's pipeline and eager step, data, heads, attention, packing, whole runs on digits, and streaming. Each
part is a command with a time limit; the rows that it has measured by then are in its record. --tiny runs every part on
the CPU with tiny sizes, to show that they run; its records are discarded.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

import results

BENCHMARKS = Path(__file__).resolve().parent
CELLS = ("seqpool1", "seqattn1", "ga1", "seqattn8", "ga8")
SMALL = ["model.width=32", "model.depth=1", "model.attention_heads=1", "schedule.warmup='0 epochs'"]
UPSTREAM = ["model=cct_7_3x1", "head=seqattn", "heads=8", "augmentation=paper", "batch_size=256"]
UPSTREAM += ["compile=step", "schedule.warmup='0 epochs'"]
PACKED = ["model=cct_7_3x1", "dataset.image_size=32", "augmentation=paper", "head=seqattn", "heads=8", "batch_size=256"]
PACKED += ["compile=step"]


class Part(NamedTuple):
    """Commands that run at the same time, and their time limit."""

    name: str
    commands: list[str]
    seconds: int


def main(words: Sequence[str] | None = None) -> int:
    args = arguments(words)
    if args.tiny:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            return run_parts(tiny(), args, Path(folder))
    if not torch.cuda.is_available():
        print(
            "make bench-gpu: expected a GPU, found none; make bench-gpu TINY=1 tries every part on the CPU",
            file=sys.stderr,
        )
        return 2
    code = run_parts(full(), args, results.RECORDS)
    results.write()
    return code


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--minutes", type=float, default=10, help="for all parts together")
    made.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU")
    made.add_argument("--only", nargs="+", metavar="PART", choices=[part.name for part in tiny()], help="these parts")
    return made.parse_args(words)


def run_parts(parts: Iterator[Part], args: argparse.Namespace, records: Path) -> int:
    until, failed = time.monotonic() + 60 * args.minutes, []
    for part in parts:
        if args.only and part.name not in args.only:
            continue
        seconds = min(part.seconds, until - time.monotonic())
        print(f"== {part.name}, at most {max(0, seconds):.0f} s", flush=True)
        started = time.monotonic()
        if seconds < 1 or not run(part, records, seconds):
            failed.append(part.name)
        print(f"== {part.name}: {time.monotonic() - started:.0f} s", flush=True)
    if failed:
        print(f"failed or not finished: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def full() -> Iterator[Part]:
    """Limits add up to more than the ten minutes: a part that ends early leaves its time to others."""
    workers = max(1, (os.cpu_count() or 2) - 2)
    compiling = [f"step.py --device cuda --compile-only --cells {cell} --sides blocks step" for cell in CELLS]
    # Its images differ in size from those of step.py, so that it compiles other code.
    compiling.append(f"packing.py --device cuda --seconds 1 --compile-only {_quoted(PACKED)}")
    upstream = f"e2e.py --device cuda --images 51200 --epochs 2 --seeds 1 --workers {workers} {_quoted(UPSTREAM)}"
    yield Part("roofline", ["roofline.py --device cuda"], 40)
    yield Part("compiling", compiling, 150)
    yield Part("step", ["step.py --device cuda --rounds 20"], 150)
    yield Part("upstream", [upstream], 100)
    yield Part("data", ["data.py --device cuda --batches 16 --rounds 5"], 50)
    yield Part("heads", ["heads.py --device cuda --batch 256 --head seqpool --head ga --head seqattn"], 40)
    yield Part("attention", ["attention.py --device cuda"], 40)
    yield Part("packing", ["packing.py --device cuda --most 4 --rounds 1 --seconds 3 " + _quoted(PACKED)], 150)
    yield Part("e2e", ["e2e.py --device cuda --epochs 10 --seeds 5 --workers 4"], 100)
    streaming = f"streaming.py --device cuda --workers {workers} --images 3000 --batches 24 --rounds 2"
    yield Part("streaming", [f"{streaming} --model cct_14_7x2_224"], 60)


def tiny() -> Iterator[Part]:
    """The same parts with sizes for a CPU."""
    step = "step.py --model cct_2_3x2 --image-size 16 --batch 4 --size 64 --threads 1"
    runs, small = "e2e.py --threads 1 --epochs 1 --seeds 1", _quoted(SMALL)
    packing = f"packing.py --device cpu --most 2 --rounds 1 --seconds 1 --threads 1 {small}"
    yield Part("roofline", ["roofline.py --size 64 --rounds 2 --threads 1"], 60)
    filling = [f"{step} --compile-only --cells seqattn2 --sides off", f"{packing} --compile-only"]
    yield Part("compiling", filling, 60)
    yield Part("step", [f"{step} --rounds 1 --sides reference off"], 120)
    yield Part("upstream", [f"{runs} --images 128 augmentation=paper {small}"], 120)
    yield Part("data", ["data.py --rounds 1"], 180)
    yield Part("heads", ["heads.py --batch 4 --tokens 16 --width 32 --rounds 1 --threads 1"], 120)
    yield Part("attention", ["attention.py --batch 2 --tokens 16 --heads 1 --rounds 1 --threads 1"], 60)
    yield Part("packing", [packing], 180)
    yield Part("e2e", [f"{runs} {small}"], 120)
    streaming = "streaming.py --images 80 --batches 1 --rounds 1 --workers 1 --model vit_2_4_32"
    yield Part("streaming", [streaming], 180)


def _quoted(words: Sequence[str]) -> str:
    return " ".join(f'"{word}"' for word in words)


def run(part: Part, records: Path, seconds: float) -> bool:
    """Return whether all commands succeeded in time; the others are killed with their children."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    processes = []
    for command in part.commands:
        script, *rest = shlex.split(command)
        words = [sys.executable, str(BENCHMARKS / script), "--records", os.path.relpath(records), *rest]
        processes.append(subprocess.Popen(words, env=environment, start_new_session=True))
    until, succeeded = time.monotonic() + seconds, True
    for process in processes:
        try:
            succeeded &= process.wait(max(0.1, until - time.monotonic())) == 0
        except subprocess.TimeoutExpired:
            succeeded = False
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return succeeded


if __name__ == "__main__":
    sys.exit(main())
