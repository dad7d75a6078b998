"""List the operators that take the most time in a training step.

    python benchmarks/operators.py [KEY=VALUE ...] [--loop] [--rounds 3] [--threads 2] [--records FOLDER]

KEY=VALUE are overrides of a run, e.g. head=ga heads=4 batch_size=128 compile=step; by default cct_7_3x1 with eight
seqattn heads on 64 images of 32x32. --loop replaces the head by the loop over branches of the tests. Prints the ten
operators with the largest share of the time, on the GPU if there is one, else on the CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "heads"))
import oracle

from headsweep.config import RunConfig
from headsweep.exit_codes import one_line_errors
from headsweep.models.build import model_of
from headsweep.training.compiling import TRIALS, Gradients
from headsweep.training.device import make_deterministic
from headsweep.training.optimization import build_optimizer
from measuring import Benchmark, Step, compose, parser

SHOWN = 10
DEFAULT = ["model=cct_7_3x1", "dataset=cifar100", "head=seqattn", "heads=8", "batch_size=64"]


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    run = compose([*DEFAULT, *args.overrides])
    bench = Benchmark("operators", args)
    used, step = training_step(run, bench.device, args.loop)
    for _ in range(1 if used == "off" else TRIALS):  # compilation and recording end within these
        step()
    head = "loop" if args.loop else "stacked"
    bench.measure("step", {head: step}, burst=bench.burst)  # without the profiler
    events = profiled(step, bench.device, args.rounds)
    own_time = {event.key: own_milliseconds(event, bench.device) / args.rounds for event in events}
    calls = {event.key: event.count / args.rounds for event in events}
    whole = sum(own_time.values())
    print(f"compile={used}, head={head}, {len(events)} operators, {sum(calls.values()):,.0f} calls per step")
    print(f"{'share':>6} {'ms':>8} {'calls':>6}  operator")
    for operator, ms in sorted(own_time.items(), key=lambda item: -item[1])[:SHOWN]:
        bench.add(operator, {head: [ms]}, share=ms / whole, calls=calls[operator])
        print(f"{ms / whole:6.1%} {ms:8.1f} {calls[operator]:6.0f}  {operator[:80]}")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=3)
    made.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    made.add_argument("--loop", action="store_true", help="the loop over branches instead of the stacked head")
    return made.parse_args(words)


def training_step(run: RunConfig, device: torch.device, loop: bool) -> tuple[str, Step]:
    """Return the value of compile in use, and a step as the training loop does it, on one batch of noise."""
    run.dataset.num_classes = 100
    model: nn.Module = model_of(run)
    if loop:
        model = BranchLoop(model.backbone, oracle.reference(run.head.name, model.head))
    make_deterministic(device)  # as a run does
    model = model.to(device).train()
    optimizer = build_optimizer(model, run.optimizer)
    gradients = Gradients(model, run, device, steps=0)
    size = run.dataset.image_size
    images = torch.randn(run.batch_size, run.dataset.channels, size, size, device=device)
    targets = torch.full((run.batch_size, 100), 0.01, device=device)

    def step() -> None:
        gradients(images, targets, (0, 0, 0))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return gradients.used, step


class BranchLoop(nn.Module):
    """A classifier whose head computes branch by branch."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor, per_head: bool) -> Tensor:
        return self.head(self.backbone(images))


def profiled(step: Step, device: torch.device, steps: int) -> list[FunctionEventAvg]:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return list(profiler.key_averages())


def own_milliseconds(event: FunctionEventAvg, device: torch.device) -> float:
    return (event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total) / 1e3


if __name__ == "__main__":
    with one_line_errors():
        main()
