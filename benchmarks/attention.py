"""Compare torch's attention with the kernels of model.attention_kernel=triton.

    python benchmarks/attention.py [--device cuda] [--batch 256] [--tokens 64 256] [--rounds 11] [--records FOLDER]

Forward and backward of one layer, from packed query, key and value to their packed gradient, with deterministic
algorithms; on a GPU in bfloat16 and replayed as a CUDA graph. torch's attention measured against itself (A/A) comes
first. A CPU has torch's side alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from headsweep.exit_codes import one_line_errors
from headsweep.models.compact.attention import attend
from headsweep.models.compact.packed_operators import attend_packed
from headsweep.training.device import make_deterministic
from measuring import AA, Benchmark, Step, parser

WARM_UP = 3  # runs before one is recorded as a graph, in which kernels are compiled


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    bench = Benchmark("attention", args)
    make_deterministic(bench.device)
    for tokens in args.tokens:
        shape = (args.batch, tokens, 3, args.heads, args.width)
        dtype = torch.bfloat16 if bench.device.type == "cuda" else torch.float32
        packed = torch.randn(shape, device=bench.device, dtype=dtype, requires_grad=True)
        sides = {"torch": step(of_torch, packed, args.dropout)}
        if tokens == args.tokens[0]:
            bench.measure(AA, sides | {"torch again": sides["torch"]}, burst=bench.burst)
        if packed.is_cuda:
            sides["triton"] = step(attend_packed, packed, args.dropout)
        bench.measure(f"n={tokens}", sides, burst=bench.burst)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=11)
    made.add_argument("--batch", type=int, default=256)
    made.add_argument("--tokens", type=int, nargs="+", default=[64, 256], help="of an image, at most 256")
    made.add_argument("--heads", type=int, default=4, help="attention heads")
    made.add_argument("--width", type=int, default=64, help="of an attention head: 16, 32 or 64")
    made.add_argument("--dropout", type=float, default=0.1)
    return made.parse_args(words)


def of_torch(packed: Tensor, dropout: float) -> Tensor:
    query, key, value = packed.permute(2, 0, 3, 1, 4).unbind()
    return attend(query, key, value, dropout).transpose(1, 2)


def step(attended: Callable[[Tensor, float], Tensor], packed: Tensor, dropout: float) -> Step:
    """Forward and backward; on a GPU, the replay of both."""
    by = torch.randn_like(packed[:, :, 0])

    def run() -> None:
        packed.grad = None
        attended(packed, dropout).backward(by)

    return replay(run) if packed.is_cuda else run


def replay(run: Step) -> Step:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


if __name__ == "__main__":
    with one_line_errors():
        main()
