"""Device and precision of a run."""

from __future__ import annotations

import logging
import os
import platform
import resource
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from headsweep.config import Precision
from headsweep.errors import ConfigError
from headsweep.text import first_line

LOGGER = logging.getLogger("headsweep")
# What numbers depend on, beside torch.
_PACKAGES = ("headsweep", "torchvision", "timm", "numpy", "pillow", "scikit-learn")
CONTEXT_GIB = 0.75  # of GPU memory outside torch's pool: a CUDA context takes about 0.5 GiB, and kernels add to it


def choose_device(name: str) -> torch.device:
    """Return the named device; `auto` is the first GPU, else the CPU.

    Raises:
        ConfigError: the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(
            "device",
            name,
            f"expected a visible CUDA device, found {found}; use device=auto or cpu",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device", name, "expected an MPS device, found none; use device=auto or cpu")
    return device


def make_deterministic(device: torch.device) -> None:
    """Select deterministic kernels; an operation without one raises on a GPU, see `lacks_deterministic_kernel`."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        # With warn_only, torch selects attention's fastest gradient, which is not deterministic.
        torch.use_deterministic_algorithms(True)
        # No code here reads uninitialized memory; by default each new tensor would be filled with NaN.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
        try:  # older versions of torch check it once, before their first product on a GPU
            torch.ones(1, 1, device=device) @ torch.ones(1, 1, device=device)
        except RuntimeError as error:
            if not lacks_deterministic_kernel(error):
                raise
            allow_nondeterminism(first_line(error))


def lacks_deterministic_kernel(error: BaseException) -> bool:
    """Return whether the error is of an operation without a deterministic kernel."""
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    return strict and "torch.use_deterministic_algorithms(True)" in str(error)


def allow_nondeterminism(reason: str) -> None:
    """Allow non-deterministic kernels, with a warning."""
    LOGGER.warning("not deterministic on this device: repeated runs may differ in their last digits (%s)", reason)
    torch.use_deterministic_algorithms(True, warn_only=True)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Return the autocast context of a forward pass; bfloat16 needs no gradient scaling."""
    is_bfloat16 = precision.on(device.type) is Precision.bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16) if is_bfloat16 else nullcontext()


def computes_in(precision: Precision, device: torch.device) -> bool:
    """Return whether the device supports a given precision; torch would compute in float32 on some that do not."""
    if precision is not Precision.bfloat16:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with autocast(precision, device):
                return torch.is_autocast_enabled(device.type)
    except RuntimeError:  # torch's answer for an old GPU
        return False


def peak_memory() -> float:
    """Return the peak memory of this process, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux


def peak_gpu_memory(device: torch.device) -> float | None:
    """Return the peak GPU memory of this process, in GiB; None without a GPU."""
    return torch.cuda.max_memory_reserved(device) / 2**30 + CONTEXT_GIB if device.type == "cuda" else None


def memory_clock(device: torch.device) -> dict[str, float]:
    """Return the peak memory of this process, and of its GPU if there is one, as a result records them."""
    gpu = peak_gpu_memory(device)
    return {"peak_memory_gib": peak_memory()} | ({} if gpu is None else {"peak_gpu_memory_gib": gpu})


def environment(device: torch.device, ranks: int, precision: Precision) -> dict[str, Any]:
    """Return what bitwise reproduction depends on: device, threads, number of ranks, precision, versions."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device)
        if cuda
        else f"{device.type} ({platform.processor() or platform.machine()})",
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES") if cuda else None,  # in a sweep, the UUID of the run's own
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "precision": precision.on(device.type).value,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "packages": ", ".join(_versions()),
    }


def _versions() -> Iterator[str]:
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):  # a build of its own may have no metadata
            yield f"{package} {version(package)}"
