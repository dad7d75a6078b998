"""How fast is a whole training step: ours in eager mode and compiled, and the plain one that upstream would take?

    python benchmarks/step.py [--device cuda] [--batch 64] [--rounds 5] [--threads 2] [--json FILE]

Forward, backward and optimizer of cct_7_3x1 at 32x32 with 100 classes, images ready on the device. Sides, which take
turns in one process: `plain` (benchmarks/plain.py: loop over branches, attention written out, AdamW as it comes;
float32, and `plain bf16` under autocast on a GPU), `off` (ours in eager mode), `blocks` and `step` (compiled; on a GPU,
or where --sides names them). An A/A pair comes first. Then the heads themselves take turns in our fastest way: what
does each cost beside seqpool? MFU is FLOPs of the loop model over those of a product measured here; the roofline is
that of benchmarks/roofline.py.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, product

import torch
from torch import Tensor

from composed import compose
from headsweep.config import Compilation, RunConfig
from headsweep.exit_codes import one_line_errors
from headsweep.heads import HEADS
from headsweep.models.build import model_of
from headsweep.training.compiling import Gradients
from headsweep.training.device import make_deterministic
from headsweep.training.objective import objective
from headsweep.training.optimization import build_optimizer
from measuring import AA, Results, Samples, Step, interleaved, parser, positive, ratio, ready, surroundings
from plain import PlainModel, as_it_comes, plain_optimizer
from roofline import Machine, calibrate, loop_flops, roofline

CELLS = ("seqpool1", "seqattn1", "ga1", "seqattn8", "ga8")
CPU_SIDES, GPU_SIDES = ("plain", "off"), ("plain", "plain bf16", "off", "blocks", "step")
STEPS = 100_000  # of the run that the step is taken to be of


@dataclass(frozen=True)
class Bench:
    """What all cells have in common."""

    args: argparse.Namespace
    device: torch.device
    machine: Machine
    results: Results


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    runs = {name: cell(name, args) for name in args.cells}
    device = ready(args)
    make_deterministic(device)  # before the first product, and down to what the key of torch's compile cache holds
    print(f"{surroundings()}; median of {args.rounds} rounds of {args.batch} images")
    results = Results("step", args, args.device)
    if args.compile_only:
        bench = Bench(args, device, Machine(1, 1, 1), results)
        for run, side in product(runs.values(), args.sides):
            build(side, run, bench)
        return
    bench = Bench(args, device, calibrate(device, args.size, 10, results), results)
    first = runs[args.cells[0]]
    show(bench, AA, first, {"off": build("off", first, bench)[0], "off again": build("off", first, bench)[0]}, {})
    fastest: dict[str, tuple[Step, float]] = {}
    for name, run in runs.items():
        built = {side: build(side, run, bench) for side in args.sides}
        fastest[name] = built[args.sides[-1]]
        memory = {side: gib for side, (_, gib) in built.items() if gib}
        show(bench, name, run, {side: step for side, (step, _) in built.items()}, memory)
    if len(fastest) > 1:
        compare_heads(bench, fastest)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.add_argument("--model", default="cct_7_3x1")
    made.add_argument("--image-size", type=positive, default=32)
    made.add_argument("--cells", type=head_and_number, nargs="+", default=CELLS, metavar="HEADK", help="e.g. seqattn8")
    made.add_argument("--sides", nargs="+", choices=GPU_SIDES)
    made.add_argument("--batch", type=positive, help="256 on a GPU, 64 on a CPU")
    made.add_argument("--size", type=positive, help="of the matrices of the calibration")
    made.add_argument("--compile-only", action="store_true", help="fill the compile cache; measure nothing")
    args = made.parse_args(words)
    gpu = args.device == "cuda"
    args.sides = args.sides or (GPU_SIDES if gpu else CPU_SIDES)
    args.batch, args.size = args.batch or (256 if gpu else 64), args.size or (8192 if gpu else 1024)
    return args


def head_and_number(text: str) -> str:
    """The name of a cell, for argparse."""
    found = re.fullmatch(r"([a-z]+)[1-9]\d*", text)
    if not found or found[1] not in HEADS:
        want = f"want a head and how many of it, e.g. seqattn8; heads: {', '.join(HEADS)}"
        raise argparse.ArgumentTypeError(f"{text!r}: {want}")
    return text


def cell(name: str, args: argparse.Namespace) -> RunConfig:
    head = name.rstrip("0123456789")
    words = [f"model={args.model}", f"head={head}", f"heads={name[len(head) :]}", f"batch_size={args.batch}"]
    return compose([*words, "dataset=cifar100", f"dataset.image_size={args.image_size}"])


def build(side: str, run: RunConfig, bench: Bench) -> tuple[Step, float]:
    """A step that has been taken three times, and the GiB that its making and taking took of a GPU."""
    cuda = bench.device.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    step = plain(run, bench.device, side.endswith("bf16")) if side.startswith("plain") else ours(side, run, bench)
    for _ in range(3):
        step()
    return step, (torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else 0.0


def batch(run: RunConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and soft targets."""
    size, classes = run.dataset.image_size, run.dataset.num_classes
    images = torch.randn(run.batch_size, run.dataset.channels, size, size, device=device)
    return images, torch.rand(run.batch_size, classes, device=device).softmax(1)


def plain(run: RunConfig, device: torch.device, autocast: bool) -> Step:
    model = PlainModel(run).to(device).train()
    optimizer = plain_optimizer(model, run)
    images, targets = batch(run, device)

    def step() -> None:
        as_it_comes()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            logits = model(images)
        objective(logits, targets, 0.0).backward()
        optimizer.step()

    return step


def ours(side: str, run: RunConfig, bench: Bench) -> Step:
    """What training/loop.py does in a step."""
    run = replace(run, compile=Compilation[side])
    model = model_of(run).to(bench.device).train()
    optimizer = build_optimizer(model, run.optimizer)
    gradients = Gradients(model, run, bench.device, STEPS)
    images, targets = batch(run, bench.device)
    numbers = count()

    def step() -> None:
        as_in_a_run(bench.device)
        gradients(images, targets, (run.seed, next(numbers), 0))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def as_in_a_run(device: torch.device) -> None:
    """What `make_deterministic` has set and `as_it_comes` undone."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True)


def show(bench: Bench, name: str, run: RunConfig, sides: dict[str, Step], memory: dict[str, float]) -> None:
    """Measure the sides and print a line for each."""
    took = interleaved(sides, bench.args.rounds, bench.device)
    flops = loop_flops(run)
    tokens = tokens_of(run)
    ceiling = roofline(bench.machine, run.model, tokens)
    bench.results.add(
        name, took.wall, cpu_samples=took.cpu, images=run.batch_size, peak_gib=memory, flops=flops, ceiling=ceiling
    )
    against = next(iter(sides))
    for side in sides:
        pace = run.batch_size / statistics.median(took.wall[side]) * 1e3
        line = f"{name:9} {side:10} {statistics.median(took.wall[side]):9.2f} ms {pace:9.0f} images/s"
        line += f"  MFU {pace * flops / bench.machine.flops:6.1%}  of the roofline {pace / ceiling:6.1%}"
        line += f"  {memory[side]:.2f} GiB" if side in memory else ""
        print(
            f"{line}  x {against}: {speed(took.wall, against, side)}{by_cpu(bench, took.cpu, against, side)}",
            flush=True,
        )


def speed(samples: Samples, against: str, side: str) -> str:
    return str(ratio(samples[against], samples[side]))


def by_cpu(bench: Bench, samples: Samples, against: str, side: str) -> str:
    return "" if bench.device.type == "cuda" else f", by CPU time {speed(samples, against, side)}"


def tokens_of(run: RunConfig) -> int:
    with torch.device("meta"):
        return model_of(run).backbone.tokens


def compare_heads(bench: Bench, heads: dict[str, tuple[Step, float]]) -> None:
    """Steps of the cells beside the first one's."""
    took = interleaved({name: step for name, (step, _) in heads.items()}, bench.args.rounds, bench.device)
    memory = {name: gib for name, (_, gib) in heads.items() if gib}
    bench.results.add("heads", took.wall, cpu_samples=took.cpu, peak_gib=memory, way=bench.args.sides[-1])
    first = next(iter(heads))
    for name in heads:
        line = f"{name} / {first}: {ratio(took.wall[name], took.wall[first])}"
        line += "" if bench.device.type == "cuda" else f", by CPU time {ratio(took.cpu[name], took.cpu[first])}"
        print(line + (f"; memory {memory[name] / memory[first]:.3f}" if memory else ""), flush=True)


if __name__ == "__main__":
    with one_line_errors():
        main()
