"""Which operators take the time of a training step?

    python benchmarks/operators.py [KEY=VALUE ...] [--loop] [--steps 3] [--threads 2] [--json FILE]

KEY=VALUE are a run's, e.g. head=ga heads=4 batch_size=128 compile=step; by default cct_7_3x1 with eight seqattn heads
on 64 images of 32x32. --loop puts the loop over branches that the tests take for the truth in the place of the head.
Prints the ten operators with the largest share of the time: of the GPU's where there is one, else of the CPU's.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "heads"))
import oracle

from composed import compose
from headsweep.config import RunConfig
from headsweep.exit_codes import one_line_errors
from headsweep.models.build import model_of
from headsweep.training.compiling import TRIALS, Gradients
from headsweep.training.device import choose_device, make_deterministic
from headsweep.training.optimization import build_optimizer
from measuring import positive

STANDARD = ["model=cct_7_3x1", "dataset=cifar100", "head=seqattn", "heads=8", "batch_size=64"]


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    run = compose([*STANDARD, *args.keys])
    device = choose_device(run.device)
    used, step = training_step(run, device, args.loop)
    for _ in range(1 if used == "off" else TRIALS):  # whatever is compiled and recorded is, then
        step()
    rows, seconds = measure(step, device, args.steps)
    report(
        rows, f"{seconds * 1e3:.1f} ms a step, {device.type}, compile={used}, head={'loop' if args.loop else 'ours'}"
    )
    if args.json:
        args.json.write_text(json.dumps({"seconds": seconds, "operators": rows}, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--loop", action="store_true", help="the loop over branches in the place of the head")
    parser.add_argument("--steps", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--json", type=Path, help="write all operators here")
    return parser.parse_args()


def training_step(run: RunConfig, device: torch.device, loop: bool) -> tuple[str, Callable[[], None]]:
    """What is compiled, and a step as the loop takes it, on one batch of noise."""
    run.dataset.num_classes = 100
    model: nn.Module = model_of(run)
    if loop:
        model = Loop(model.backbone, oracle.reference(run.head.name, model.head))
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


class Loop(nn.Module):
    """A classifier whose head computes branch by branch."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor, per_head: bool) -> Tensor:
        return self.head(self.backbone(images))


def measure(step: Callable[[], None], device: torch.device, steps: int) -> tuple[list[dict[str, object]], float]:
    """All operators, the longest first, with their share of the time; the seconds of a step without a profiler."""
    started = time.perf_counter()
    for _ in range(steps):
        step()
    wait_for(device)
    seconds = (time.perf_counter() - started) / steps
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiled:
        for _ in range(steps):
            step()
        wait_for(device)

    def own_time(event: FunctionEventAvg) -> float:
        return event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total

    events = sorted(profiled.key_averages(), key=own_time, reverse=True)
    whole = sum(map(own_time, events))
    rows = [
        {"operator": e.key, "share": own_time(e) / whole, "ms": own_time(e) / steps / 1e3, "calls": e.count / steps}
        for e in events
    ]
    return rows, seconds


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def report(rows: list[dict[str, object]], title: str) -> None:
    print(title)
    print(f"{'share':>6} {'ms':>8} {'calls':>6}  operator ({len(rows)} in all, {calls(rows):.0f} calls a step)")
    for row in rows[:10]:
        print(f"{row['share']:6.1%} {row['ms']:8.1f} {row['calls']:6.0f}  {row['operator'][:80]}")


def calls(rows: list[dict[str, object]]) -> float:
    return sum(row["calls"] for row in rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
