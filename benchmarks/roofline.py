"""Measure matrix products and copies, and compute the step of a CCT that they would allow.

python benchmarks/roofline.py [--device cuda] [--size 8192] [--records FOLDER]
"""

# n tokens, d width

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from headsweep.config import CompactConfig, RunConfig
from headsweep.exit_codes import one_line_errors
from headsweep.models.meta_device import on_meta_device
from measuring import Benchmark, parser
from reference import reference_model

BACKWARD = 2  # products and passes over memory, in units of the forward pass


class Machine(NamedTuple):
    """The best rate over all rounds: the median depends on other load."""

    flops: float  # per second, of a product of square matrices: bfloat16 on a GPU, float32 on a CPU
    bytes: float  # per second, read and written, of a copy
    width: int  # bytes of a number


def calibrate(bench: Benchmark, size: int) -> Machine:
    """Time a product of (size, size) matrices, and a copy of as many numbers as eight of them."""
    dtype = torch.bfloat16 if bench.device.type == "cuda" else torch.float32
    matrix = torch.randn(size, size, device=bench.device, dtype=dtype)
    source = torch.randn(8, size, size, device=bench.device, dtype=dtype)
    target = torch.empty_like(source)
    product = min(bench.measure("product", {"product": lambda: matrix @ matrix}).wall["product"]) / 1e3
    copy = min(bench.measure("copy", {"copy": lambda: target.copy_(source)}).wall["copy"]) / 1e3
    machine = Machine(2 * size**3 / product, 2 * source.numel() * source.element_size() / copy, matrix.element_size())
    print(f"best product {machine.flops / 1e12:.3f} TFLOP/s, best copy {machine.bytes / 1e9:.1f} GB/s", flush=True)
    return machine


def loop_flops(run: RunConfig) -> float:
    """FLOPs per image of a training step of the loop over branches, which no reformulation reduces."""
    with on_meta_device():
        model = reference_model(run).train()
        images = torch.empty(2, run.dataset.channels, run.dataset.image_size, run.dataset.image_size)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / 2


def roofline(machine: Machine, model: CompactConfig, tokens: int) -> float:
    """Images/s of the encoder blocks alone, forward and backward.

    Each kernel is a product with all element-wise work fused in, and takes as long as its FLOPs or its memory traffic
    take, whichever is longer.
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
    args = arguments(words)
    bench = Benchmark("roofline", args)
    calibrate(bench, args.size or (8192 if args.device == "cuda" else 1024))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=10)
    made.add_argument("--size", type=int, help="of the matrices; 8192 on a GPU, 1024 on a CPU")
    return made.parse_args(words)


if __name__ == "__main__":
    with one_line_errors():
        main()
