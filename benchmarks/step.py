"""What does a training step with eight seqattn heads cost beside one with CCT's own head?

    python benchmarks/step.py [--rounds 5] [--threads 2] [--json FILE]

Forward, backward and AdamW of cct_7_3x1 on 64 images of 32x32 on the CPU, the two models taking turns in one process.
A ratio of speeds of 1 would be a head for nothing. CPU time stands beside wall time, for machines that others use too.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

import headsweep.models  # noqa: F401 (registers the models)

BATCH, CLASSES = 64, 100
NAMES = ("seqpool1_cct_7_3x1_32", "seqattn8_cct_7_3x1_32")


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    steps = {name: training_step(name) for name in NAMES}
    samples: dict[str, dict[str, list[float]]] = {name: {"wall_ms": [], "cpu_ms": []} for name in NAMES}
    for _ in range(args.rounds + 1):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            samples[name]["wall_ms"].append((time.perf_counter() - wall) * 1e3)
            samples[name]["cpu_ms"].append((time.process_time() - cpu) * 1e3)
    report(samples)
    if args.json:
        args.json.write_text(json.dumps(samples, indent=1))


def report(samples: dict[str, dict[str, list[float]]]) -> None:
    """Medians without the first round, and the median over rounds of the ratio within a round."""
    for kind in ("wall_ms", "cpu_ms"):
        own, eight = (samples[name][kind][1:] for name in NAMES)
        for name, times in zip(NAMES, (own, eight), strict=True):
            print(f"{kind:8} {name:24} {statistics.median(times):9.1f}")
        print(f"{kind:8} ratio of speeds {statistics.median(a / b for a, b in zip(own, eight, strict=True)):.3f}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write raw samples here")
    return parser.parse_args()


def training_step(name: str) -> Callable[[], None]:
    model = timm.create_model(name, num_classes=CLASSES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model(images, per_head=True)
        F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1])).backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
