"""Compare stacked heads with a loop over branches.

    python benchmarks/heads.py [--device cuda] [--batch 64] [--rounds 11] [--threads 2] [--records FOLDER]

Forward and backward in one process, N=D=256, 100 classes; on a GPU under bfloat16 autocast. The loop is that of the
tests (tests/heads/oracle.py), with the same parameters. The loop measured against itself (A/A) comes first.
"""

from __future__ import annotations

import argparse
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
from measuring import AA, Benchmark, Step, parser

CLASSES = 100


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    bench = Benchmark("heads", args)
    tokens = torch.randn(args.batch, args.tokens, args.width, device=bench.device, requires_grad=True)
    loop = oracle.reference("seqattn", build("seqattn", 2, tokens))
    bench.measure(AA, {"loop": step(loop, tokens), "loop again": step(loop, tokens)}, burst=bench.burst)
    for name in args.head or HEADS:
        for heads in args.heads:
            stacked = build(name, heads, tokens)
            loop = oracle.reference(name, stacked)
            sides = {"loop": step(loop, tokens), "stacked": step(stacked, tokens)}
            bench.measure(f"{name} K={heads}", sides, burst=bench.burst)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=11)
    made.add_argument("--head", action="append", choices=list(HEADS), help="only this head (may be repeated)")
    made.add_argument("--heads", type=int, nargs="+", default=[1, 2, 4, 8], metavar="K")
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--tokens", type=int, default=256)
    made.add_argument("--width", type=int, default=256, help="a multiple of 32")
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


if __name__ == "__main__":
    with one_line_errors():
        main()
