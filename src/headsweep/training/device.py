"""Where and in which precision a run computes."""

from __future__ import annotations

import logging
import os
import platform
import resource
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from headsweep.config import Precision
from headsweep.errors import ConfigError

LOGGER = logging.getLogger("headsweep")
CONTEXT_GIB = 0.75  # of a GPU, outside torch's pool: a CUDA context takes about half a GiB, and kernels add to it


def choose_device(name: str) -> torch.device:
    """The named device; `auto` is the first GPU, else the CPU.

    Raises:
        ConfigError: the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError("device", name, f"this machine shows {found} CUDA device(s); want device=auto or device=cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device", name, "this machine has no MPS device; want device=auto or device=cpu")
    return device


def make_deterministic(device: torch.device) -> None:
    """Ask for the same bits twice (law 5); what has no deterministic kernel on a GPU raises, see `is_undetermined`."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        # Where that only warns, torch takes attention's fastest gradient, which is not deterministic.
        torch.use_deterministic_algorithms(True)
        # Nothing reads memory that it has not written; else each new tensor would be filled with NaN first.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for to give the same bits
        try:  # older versions of torch look once, before their first product on a GPU
            torch.ones(1, 1, device=device) @ torch.ones(1, 1, device=device)
        except RuntimeError as error:
            if not is_undetermined(error):
                raise
            settle_for_less(str(error).strip().split("\n", 1)[0])


def is_undetermined(error: BaseException) -> bool:
    """Has an operation raised that can be computed, but not twice with the same bits?"""
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    return strict and "torch.use_deterministic_algorithms(True)" in str(error)


def settle_for_less(reason: str) -> None:
    """Go on with the kernels that there are, and say so."""
    LOGGER.warning("two such runs may differ in their last digits here (%s)", reason)
    torch.use_deterministic_algorithms(True, warn_only=True)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The context of a forward pass. bfloat16 has float32's range, so no gradient is scaled."""
    wanted = precision is Precision.bfloat16 or (precision is Precision.auto and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16) if wanted else nullcontext()


def peak_memory() -> float:
    """The most memory that this process has held so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def peak_gpu_memory(device: torch.device) -> float | None:
    """The most memory of its GPU that this process has taken so far, in GiB; None without a GPU."""
    return torch.cuda.max_memory_reserved(device) / 2**30 + CONTEXT_GIB if device.type == "cuda" else None


def environment(device: torch.device, ranks: int) -> dict[str, Any]:
    """What a reader must know to get the same bits: device, threads, number of ranks, versions."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device)
        if cuda
        else f"{device.type} ({platform.processor() or platform.machine()})",
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES") if cuda else None,  # in a sweep, the UUID of the run's own
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
    }
