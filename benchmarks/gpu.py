"""Everything that wants a GPU, measured within ten minutes, and a table of the targets at the end.

    python benchmarks/gpu.py [--folder benchmarks/results] [--minutes 10] [--tiny] [--only PART ...]

Calibration first, then torch's compile cache is filled by all cells at once, then the step, whole runs of 50,000 images
against upstream's pipeline and eager step, data, heads, packing, whole runs on digits, and streaming. Each part is a
command of its own with a time limit; what it has measured until then is in its file. --tiny runs every part on the CPU
with tiny sizes: it says that they work, and nothing of speed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

import results as targets
from measuring import above_zero

BENCHMARKS = Path(__file__).resolve().parent
CELLS = ("seqpool1", "seqattn1", "ga1", "seqattn8", "ga8")
SMALL = ["model.width=32", "model.depth=1", "model.attention_heads=1", "schedule.warmup='0 epochs'"]
UPSTREAM = ["model=cct_7_3x1", "head=seqattn", "heads=8", "augmentation=paper", "batch_size=256"]
UPSTREAM += ["compile=step", "schedule.warmup='0 epochs'"]
PACKED = ["model=cct_7_3x1", "dataset.image_size=32", "augmentation=paper", "head=seqattn", "heads=8", "batch_size=256"]
PACKED += ["compile=step"]


class Part(NamedTuple):
    """Commands that run at once, and the seconds that they have."""

    name: str
    commands: list[str]  # of them the last has the results
    seconds: int


def main(words: Sequence[str] | None = None) -> int:
    args = arguments(words)
    if not args.tiny and not torch.cuda.is_available():
        print(
            "make bench-gpu: this machine shows no GPU; make bench-gpu TINY=1 tries every part on the CPU",
            file=sys.stderr,
        )
        return 2
    parts = list(tiny() if args.tiny else full())
    if unknown := set(args.only or ()) - {part.name for part in parts}:
        known = ", ".join(part.name for part in parts)
        print(f"--only {' '.join(sorted(unknown))}: unknown; known: {known}", file=sys.stderr)
        return 2
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"--folder {args.folder}: {error.strerror}; want a folder that can be made and written", file=sys.stderr)
        return 2
    until, failed = time.monotonic() + 60 * args.minutes, []
    for part in parts:
        if args.only and part.name not in args.only:
            continue
        seconds = min(part.seconds, until - time.monotonic())
        print(f"== {part.name}, at most {max(0, seconds):.0f} s", flush=True)
        started = time.monotonic()
        if seconds < 1 or not run(part, args.folder / f"{part.name}.json", seconds):
            failed.append(part.name)
        print(f"== {part.name}: {time.monotonic() - started:.0f} s", flush=True)
    print(f"files: {args.folder}")
    code = 0
    if args.tiny:
        print("tiny sizes, whose figures mean nothing: no targets are looked at")
    else:
        code = targets.show(args.folder, targets.GPU)
    if failed:
        print(f"not done, or not to the end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else code


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--folder", type=Path, default=targets.RESULTS, help="for the files of results")
    made.add_argument("--minutes", type=above_zero, default=10, help="for all parts together")
    made.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU")
    made.add_argument("--only", nargs="+", metavar="PART", help="only these parts")
    return made.parse_args(words)


def full() -> Iterator[Part]:
    """Limits add up to more than the ten minutes: what ends early leaves its time to others."""
    workers = max(1, (os.cpu_count() or 2) - 2)
    compiling = [f"step.py --device cuda --compile-only --cells {cell} --sides blocks step" for cell in CELLS]
    compiling.append(f"packing.py --device cuda --seconds 1 --compile-only {_quoted(PACKED)}")  # other images: new code
    upstream = f"e2e.py --device cuda --images 51200 --epochs 2 --seeds 1 --workers {workers} {_quoted(UPSTREAM)}"
    yield Part("roofline", ["roofline.py --device cuda"], 40)
    yield Part("compiling", compiling, 150)
    yield Part("step", ["step.py --device cuda --rounds 20"], 150)
    yield Part("upstream", [upstream], 100)
    yield Part("data", ["data.py --device cuda --images 4096 --rounds 5"], 50)
    yield Part("heads", ["heads.py --device cuda --batch 256 --head seqpool --head ga --head seqattn"], 40)
    yield Part("packing", ["packing.py --device cuda --most 4 --rounds 1 --seconds 3 " + _quoted(PACKED)], 150)
    yield Part("e2e", ["e2e.py --device cuda --epochs 10 --seeds 5 --workers 4"], 100)
    streaming = f"streaming.py --device cuda --workers {workers} --images 3000 --round 1536 --rounds 2"
    yield Part("streaming", [f"{streaming} --model cct_14_7x2_224"], 60)


def tiny() -> Iterator[Part]:
    """The same parts where there is no GPU and little time."""
    step = "step.py --model cct_2_3x2 --image-size 16 --batch 4 --size 64 --threads 1"
    runs, small = "e2e.py --threads 1 --epochs 1 --seeds 1", _quoted(SMALL)
    packing = f"packing.py --device cpu --most 2 --rounds 1 --seconds 1 --threads 1 {small}"
    yield Part("roofline", ["roofline.py --size 64 --rounds 2 --threads 1"], 60)
    filling = [f"{step} --compile-only --cells seqattn2 --sides off", f"{packing} --compile-only"]
    yield Part("compiling", filling, 60)
    yield Part("step", [f"{step} --rounds 1 --sides plain off"], 120)
    yield Part("upstream", [f"{runs} --images 128 augmentation=paper {small}"], 120)
    yield Part("data", ["data.py --rounds 1"], 180)
    yield Part("heads", ["heads.py --batch 4 --tokens 16 --width 32 --rounds 1 --threads 1"], 120)
    yield Part("packing", [packing], 180)
    yield Part("e2e", [f"{runs} {small}"], 120)
    streaming = "streaming.py --images 80 --round 64 --rounds 1 --workers 1 --model vit_2_4_32"
    yield Part("streaming", [streaming], 180)


def _quoted(words: Sequence[str]) -> str:
    return " ".join(f'"{word}"' for word in words)


def run(part: Part, results: Path, seconds: float) -> bool:
    """Whether all commands ended well within their time; those that did not are ended, children and all."""
    results.unlink(missing_ok=True)  # of another day
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    processes = []
    for command in part.commands:
        script, *rest = shlex.split(command)
        words = [sys.executable, str(BENCHMARKS / script), "--json", str(results), *rest]
        processes.append(subprocess.Popen(words, env=environment, start_new_session=True))
    until, well = time.monotonic() + seconds, True
    for process in processes:
        try:
            well &= process.wait(max(0.1, until - time.monotonic())) == 0
        except subprocess.TimeoutExpired:
            well = False
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return well


if __name__ == "__main__":
    sys.exit(main())
