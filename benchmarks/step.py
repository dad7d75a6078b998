"""Time the whole training step: headsweep in eager mode and compiled, and the reference implementation.

    python benchmarks/step.py [--device cuda] [--batch 64] [--rounds 5] [--threads 2] [--records FOLDER]

Forward, backward and optimizer of cct_7_3x1 at 32x32 with 100 classes, images ready on the device. Sides, in
interleaved rounds: `reference` (benchmarks/reference.py in float32; on a GPU also `reference bf16` under autocast), and
headsweep with compile=`off`, `blocks` and `step` (compiled on a GPU, or if --sides names them). An A/A pair comes
first. Then the heads are compared with each other, on the last side. MFU is the FLOPs of the loop over branches divided
by those of a matrix product measured here; the roofline is that of benchmarks/roofline.py.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, product

import torch
from torch import Tensor

from headsweep.config import Compilation, RunConfig
from headsweep.exit_codes import one_line_errors
from headsweep.models.build import model_of
from headsweep.training.compiling import Gradients
from headsweep.training.device import make_deterministic
from headsweep.training.objective import objective
from headsweep.training.optimization import build_optimizer
from measuring import AA, Benchmark, Step, compose, parser
from reference import default_determinism, reference_model, reference_optimizer
from roofline import calibrate, loop_flops, roofline

CELLS = ("seqpool1", "seqattn1", "ga1", "seqattn8", "ga8")
CPU_SIDES, GPU_SIDES = ("reference", "off"), ("reference", "reference bf16", "off", "blocks", "step")
STEPS = 100_000  # of the run that the step belongs to


@dataclass(frozen=True)
class Built:
    """A step that has run three times, and the GPU memory that this took."""

    step: Step
    gib: float  # 0 on a CPU


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    runs = {name: cell(name, args) for name in args.cells}
    bench = Benchmark("step", args)
    # Before the first product: even the key of torch's compile cache depends on it.
    make_deterministic(bench.device)
    if args.compile_only:
        for run, side in product(runs.values(), args.sides):
            build(side, run, bench.device)
        return
    machine = calibrate(bench, args.size)
    first = runs[args.cells[0]]
    bench.measure(
        AA, {side: build("off", first, bench.device).step for side in ("off", "off again")}, burst=bench.burst
    )
    last_side: dict[str, Built] = {}
    for name, run in runs.items():
        sides = {side: build(side, run, bench.device) for side in args.sides}
        last_side[name] = sides[args.sides[-1]]
        flops, ceiling = loop_flops(run), roofline(machine, run.model, tokens_of(run))
        known = {"images": args.batch, "flops": flops, "ceiling": ceiling, "peak_gib": gib(sides)}
        times = bench.measure(name, steps(sides), burst=bench.burst, **known)
        pace = args.batch / statistics.median(times.wall[args.sides[-1]]) * 1e3
        print(f"{name}: MFU {pace * flops / machine.flops:.1%}, {pace / ceiling:.1%} of the roofline", flush=True)
    if len(runs) > 1:
        bench.measure("heads", steps(last_side), burst=bench.burst, peak_gib=gib(last_side), side=args.sides[-1])


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.add_argument("--model", default="cct_7_3x1")
    made.add_argument("--image-size", type=int, default=32)
    made.add_argument("--cells", nargs="+", default=CELLS, metavar="HEADK", help="e.g. seqattn8")
    made.add_argument("--sides", nargs="+", choices=GPU_SIDES)
    made.add_argument("--batch", type=int, help="256 on a GPU, 64 on a CPU")
    made.add_argument("--size", type=int, help="of the matrices of the calibration")
    made.add_argument("--compile-only", action="store_true", help="fill the compile cache; measure nothing")
    args = made.parse_args(words)
    gpu = args.device == "cuda"
    args.sides = args.sides or (GPU_SIDES if gpu else CPU_SIDES)
    args.batch, args.size = args.batch or (256 if gpu else 64), args.size or (8192 if gpu else 1024)
    return args


def cell(name: str, args: argparse.Namespace) -> RunConfig:
    head = name.rstrip("0123456789")
    words = [f"model={args.model}", f"head={head}", f"heads={name[len(head) :]}", f"batch_size={args.batch}"]
    return compose([*words, "dataset=cifar100", f"dataset.image_size={args.image_size}"])


def steps(sides: dict[str, Built]) -> dict[str, Step]:
    return {name: built.step for name, built in sides.items()}


def gib(sides: dict[str, Built]) -> dict[str, float]:
    return {name: built.gib for name, built in sides.items() if built.gib}


def build(side: str, run: RunConfig, device: torch.device) -> Built:
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    if side.startswith("reference"):
        step = reference(run, device, autocast=side.endswith("bf16"))
    else:
        step = headsweep(replace(run, compile=Compilation[side]), device)
    for _ in range(3):
        step()
    return Built(step, (torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else 0.0)


def batch(run: RunConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and soft targets."""
    size, classes = run.dataset.image_size, run.dataset.num_classes
    images = torch.randn(run.batch_size, run.dataset.channels, size, size, device=device)
    return images, torch.rand(run.batch_size, classes, device=device).softmax(1)


def reference(run: RunConfig, device: torch.device, autocast: bool) -> Step:
    model = reference_model(run).to(device).train()
    optimizer = reference_optimizer(model, run)
    images, targets = batch(run, device)

    def step() -> None:
        default_determinism()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            logits = model(images)
        objective(logits, targets, 0.0).backward()
        optimizer.step()

    return step


def headsweep(run: RunConfig, device: torch.device) -> Step:
    """One step as training/loop.py does it."""
    model = model_of(run).to(device).train()
    optimizer = build_optimizer(model, run.optimizer)
    gradients = Gradients(model, run, device, STEPS)
    images, targets = batch(run, device)
    numbers = count()

    def step() -> None:
        determinism_of_a_run(device)
        gradients(images, targets, (run.seed, next(numbers), 0))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def determinism_of_a_run(device: torch.device) -> None:
    """Set again what `make_deterministic` sets and the reference unsets."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True)


def tokens_of(run: RunConfig) -> int:
    with torch.device("meta"):
        return model_of(run).backbone.tokens


if __name__ == "__main__":
    with one_line_errors():
        main()
