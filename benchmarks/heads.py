"""How much faster are stacked heads than the loop over branches?

    python benchmarks/heads.py [--device cuda] [--batch 64] [--rounds 11] [--threads 2] [--json FILE]

One process, forward and backward, N=D=256, 100 classes; on a GPU under bfloat16 autocast. Loop and stacked head (which
is the one-query form of docs/heads.md) have the same parameters and take turns within a round, so that a busy machine
hurts both; an A/A pair (the same loop twice) comes first and shows what ratio is noise. Prints medians, and ratios
within a round with their range; on a CPU by CPU time too, for machines that others use.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "heads"))
import oracle

from headsweep.exit_codes import one_line_errors
from headsweep.heads import HEADS, Head, build_head
from headsweep.heads.class_attention import ATTENTION_HEADS, EXPANSION
from measuring import AA, Results, Step, interleaved, multiple, parser, positive, ratio, ready, surroundings

CLASSES = 100


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    device = ready(args)
    results = Results("heads", args, args.device)
    tokens = torch.randn(args.batch, args.tokens, args.width, device=device, requires_grad=True)
    print(f"{surroundings()}; median of {args.rounds} rounds")
    loop = oracle.reference("seqattn", build("seqattn", 2, tokens))
    measure(results, AA, {"loop": step(loop, tokens), "loop again": step(loop, tokens)}, args.rounds, device)
    for name in args.head or HEADS:
        for heads in args.heads:
            stacked = build(name, heads, tokens)
            sides = {"loop": step(oracle.reference(name, stacked), tokens), "stacked": step(stacked, tokens)}
            measure(results, f"{name} K={heads}", sides, args.rounds, device)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=11)
    made.add_argument("--head", action="append", choices=list(HEADS), help="only this head (may be repeated)")
    made.add_argument("--heads", type=positive, nargs="+", default=[1, 2, 4, 8], metavar="K")
    made.add_argument("--batch", type=positive, default=64)
    made.add_argument("--tokens", type=positive, default=256)
    made.add_argument(
        "--width", type=multiple(EXPANSION * ATTENTION_HEADS, "which class attention splits"), default=256
    )
    return made.parse_args(words)


def build(name: str, heads: int, tokens: Tensor) -> Head:
    _, count, width = tokens.shape
    return build_head(name, width=width, num_classes=CLASSES, heads=heads, tokens=count).to(tokens.device)


def step(head: nn.Module, tokens: Tensor) -> Step:
    """Forward and backward into the tokens and the parameters."""
    head.to(tokens.device)

    def run() -> None:
        head.zero_grad(set_to_none=True)
        tokens.grad = None
        with torch.autocast("cuda", torch.bfloat16) if tokens.is_cuda else nullcontext():
            logits = head(tokens)
        logits.float().square().sum().backward()

    return run


def measure(results: Results, name: str, sides: dict[str, Step], rounds: int, device: torch.device) -> None:
    took = interleaved(sides, rounds, device)
    results.add(name, took.wall, cpu_samples=took.cpu)
    (first, loop), (second, stacked) = took.wall.items()
    medians = f"{first} {statistics.median(loop):.2f} ms, {second} {statistics.median(stacked):.2f} ms"
    by_cpu = "" if device.type == "cuda" else f"; by CPU time {ratio(*took.cpu.values())}"
    print(f"{name:12} {medians}: {ratio(loop, stacked)}{by_cpu}", flush=True)


if __name__ == "__main__":
    with one_line_errors():
        main()
