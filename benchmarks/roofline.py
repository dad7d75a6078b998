"""What a machine can do, measured: matrix products and copies, and the step of a CCT that they would allow.

python benchmarks/roofline.py [--device cuda] [--size 8192] [--json FILE]
"""

# n tokens, d width

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from headsweep.config import CompactConfig, RunConfig
from headsweep.exit_codes import one_line_errors
from measuring import Results, interleaved, parser, positive, ready
from plain import PlainModel

BACKWARD = 2  # products and passes over memory, in forward ones


class Machine(NamedTuple):
    """Best of some rounds, the median being what else went on."""

    flops: float  # a second, of a product of square matrices: bfloat16 on a GPU, float32 on a CPU
    bytes: float  # a second, read and written, of a copy
    width: int  # bytes of a number


def calibrate(device: torch.device, size: int, rounds: int, results: Results | None = None) -> Machine:
    """Time a product of (size, size) matrices, and a copy of as many numbers as eight of them."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    source = torch.randn(8, size, size, device=device, dtype=dtype)
    target = torch.empty_like(source)
    sides = {"product": lambda: matrix @ matrix, "copy": lambda: target.copy_(source)}
    took = interleaved(sides, rounds, device)
    moved = 2 * source.numel() * source.element_size()
    machine = Machine(
        2 * size**3 / min(took.wall["product"]) * 1e3, moved / min(took.wall["copy"]) * 1e3, matrix.element_size()
    )
    if results:
        for name, samples in took.wall.items():
            results.add(name, {name: samples}, **machine._asdict())
    print(
        f"product {machine.flops / 1e12:.3f} TFLOP/s, copy {machine.bytes / 1e9:.1f} GB/s "
        f"(best of {rounds}; medians {statistics.median(took.wall['product']):.2f}, "
        f"{statistics.median(took.wall['copy']):.2f} ms)",
        flush=True,
    )
    return machine


def loop_flops(run: RunConfig) -> float:
    """FLOPs per image of a training step of the loop model, so that no algebra inflates what they are divided by."""
    with torch.device("meta"):
        model = PlainModel(run).train()
        images = torch.empty(2, run.dataset.channels, run.dataset.image_size, run.dataset.image_size)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / 2


def roofline(machine: Machine, model: CompactConfig, tokens: int) -> float:
    """Images a second of the encoder blocks alone, if a kernel did nothing but its products or its traffic.

    Kernels are products with all element-wise work fused in; of each the longer of the two times, forward and backward.
    """
    grid, hidden = tokens * model.width, model.mlp_ratio
    product = 2 * tokens * model.width**2  # a (d, d) matrix on all tokens
    kernels = [  # FLOPs, and numbers read and written
        (3 * product, 4 * grid),  # queries, keys, values
        (4 * tokens * tokens * model.width, 4 * grid),  # attention
        (product, 3 * grid),  # projection and residual
        (hidden * product, (1 + hidden) * grid),
        (hidden * product, (2 + hidden) * grid),  # and residual
        (0, 2 * grid),  # two norms
        (0, 2 * grid),
    ]
    forward = sum(max(flops / machine.flops, numbers * machine.width / machine.bytes) for flops, numbers in kernels)
    return 1 / (forward * model.depth * (1 + BACKWARD))


def main(words: Sequence[str] | None = None) -> None:
    made = parser(__doc__, rounds=10)
    made.add_argument("--size", type=positive, help="of the matrices; 8192 on a GPU, 1024 on a CPU")
    args = made.parse_args(words)
    device = ready(args)
    size = args.size or (8192 if args.device == "cuda" else 1024)
    calibrate(device, size, args.rounds, Results("roofline", args, args.device))


if __name__ == "__main__":
    with one_line_errors():
        main()
