"""How much faster are stacked heads than the loop over branches?

    python benchmarks/heads.py [--rounds 11] [--threads 2] [--json FILE]

One process, forward and backward, B=64, N=D=256, 100 classes. Loop and stacked head take turns within a round, so
that a busy machine hurts both; an A/A pair (the same loop twice) comes first and shows what ratio is noise. Prints
medians; --json writes every sample.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "heads"))
import oracle

from headsweep.heads import HEADS, Head, build_head

BATCH, TOKENS, WIDTH, CLASSES = 64, 256, 256, 100
Step = Callable[[], None]


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tokens = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    loop = oracle.reference("seqattn", build("seqattn", 2))
    rows = [row("A/A", 2, step(loop, tokens), step(loop, tokens), args.rounds)]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, median of {args.rounds} rounds")
    print(f"{'head':8} {'K':>2} {'loop ms':>9} {'stacked ms':>11} {'ratio':>6}")
    show(rows[0])
    for name in args.head or HEADS:
        for heads in (1, 2, 4, 8):
            rows.append(compare(name, heads, tokens, args.rounds))
            show(rows[-1])
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--head", action="append", choices=list(HEADS), help="only this head (may be repeated)")
    parser.add_argument("--json", type=Path, help="write raw samples here")
    return parser.parse_args()


def compare(name: str, heads: int, tokens: Tensor, rounds: int) -> dict[str, object]:
    """The loop against the stacked head that has the same parameters."""
    stacked = build(name, heads)
    return row(name, heads, step(oracle.reference(name, stacked), tokens), step(stacked, tokens), rounds)


def build(name: str, heads: int) -> Head:
    return build_head(name, width=WIDTH, num_classes=CLASSES, heads=heads, tokens=TOKENS)


def step(head: nn.Module, tokens: Tensor) -> Step:
    """Forward and backward into the tokens and the parameters."""

    def run() -> None:
        head.zero_grad(set_to_none=True)
        tokens.grad = None
        head(tokens).square().sum().backward()

    return run


def row(name: str, heads: int, loop: Step, stacked: Step, rounds: int) -> dict[str, object]:
    """Samples in milliseconds of the two, taking turns, after one round to warm up."""
    samples = [(clock(loop), clock(stacked)) for _ in range(rounds + 1)][1:]
    return {"head": name, "heads": heads, "loop_ms": [a for a, _ in samples], "stacked_ms": [b for _, b in samples]}


def clock(run: Step) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def show(result: dict) -> None:
    loop, stacked = statistics.median(result["loop_ms"]), statistics.median(result["stacked_ms"])
    print(f"{result['head']:8} {result['heads']:2} {loop:9.1f} {stacked:11.1f} {loop / stacked:6.2f}", flush=True)


if __name__ == "__main__":
    main()
