"""Independent random streams: every random number is a function of (seed, stream name, position).

A stream is named by its use ("backbone init", "data order", ...): adding a draw to one changes no other. A position is
an epoch, a step or a sample index, so that resuming exactly needs no stored random state.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def derive(seed: int, stream: str, *position: int) -> int:
    """A 63-bit seed for `stream` at `position`."""
    text = ":".join([str(seed), stream, *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, stream: str, *position: int) -> torch.Generator:
    """A CPU torch generator for `stream` at `position`."""
    return torch.Generator().manual_seed(derive(seed, stream, *position))


def python_random(seed: int, stream: str, *position: int) -> random.Random:
    """A `random.Random` for the few scalars that the host draws per batch."""
    return random.Random(derive(seed, stream, *position))


@contextmanager
def global_stream(seed: int, stream: str, *position: int) -> Iterator[None]:
    """Run a block whose draws from torch's global CPU generator come from `stream`; the state is restored after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, stream, *position))
        yield


def enter_step(seed: int, step: int, micro_batch: int = 0) -> None:
    """Point torch's global generators (dropout, drop path) at their stream for one micro-batch of one step.

    As `torch.manual_seed`, which formats the call stack for each kind of device that is not in use: in a small step,
    that takes longer than the forward pass.
    """
    key = derive(seed, "dropout", step, micro_batch)
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(key)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(key)


def uniforms(key: int, indices: Tensor, draws: int) -> Tensor:
    """Return uniform numbers in [0, 1) for each sample, which depend only on the key and the sample's index.

    A counter-based generator (the splitmix64 finaliser) in integer tensor operations: the same numbers on every
    device, whatever the batch, the worker or the rank in which the sample is met.

    Args:
        key: from `derive`, e.g. `derive(seed, "augmentation", epoch)`.
        indices: (B,) int64 sample indices, on any device.
        draws: how many numbers each sample needs.

    Returns:
        (B, draws) float32 on the device of `indices`.
    """
    counter = torch.arange(1, draws + 1, device=indices.device, dtype=torch.int64)
    state = _mix(indices[:, None] * _signed(0x9E3779B97F4A7C15) + _signed(key))
    bits = _mix(state + counter[None, :] * _signed(0xD1342543DE82EF95))
    return (_shift_right(bits, 40)).to(torch.float32) * 2.0**-24


def _mix(z: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014) on int64 tensors, whose products wrap as uint64 do."""
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own is arithmetic on signed integers."""
    return (z >> bits) & (_MASK >> bits)


def _signed(value: int) -> int:
    """Return a 64-bit pattern as a signed integer in two's complement."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value
