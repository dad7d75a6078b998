"""The GPUs that runs may use and the memory that is free there, asked of the driver (NVML) without importing torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from headsweep.config import RunConfig
from headsweep.errors import ConfigError, UserError

DEVICE_FILES = "/dev/nvidiaN"


def visible_gpus() -> tuple[str, ...]:
    """Return the UUIDs of the GPUs in CUDA_VISIBLE_DEVICES, or of all; for a GPU in MIG mode, of its MIG devices.

    The list is read as CUDA does: it ends at the first entry that names no GPU, and if one is named twice it is empty.
    An index counts as NVML does, by PCI bus.

    Raises:
        UserError: there are GPUs, but the driver does not answer: runs would start on one GPU all together.
    """
    import pynvml

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        pynvml.nvmlInit()  # never shut down: while it is open, queries are cheap
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        gpus = {_uuid(handle): tuple(_devices(handle)) for handle in handles}
    except pynvml.NVMLError as error:
        files = device_files()
        if not files or listed in ("", "-1"):
            return ()
        raise UserError(
            f"found {len(files)} of the files {DEVICE_FILES}, but the NVIDIA driver cannot be asked about its GPUs "
            f"({error}); use device=cpu, or start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        ) from error
    return tuple(chain(*gpus.values())) if listed is None else _listed(listed, gpus)


def gpus_for(runs: Sequence[RunConfig]) -> tuple[str, ...]:
    """Return the visible GPUs that `runs` may use: none if all train on the CPU, one if they name it (`cuda:1`).

    Raises:
        ConfigError: there is no GPU of that index.
        UserError: as `visible_gpus`.
    """
    devices = {run.device for run in runs}
    if devices <= {"cpu", "mps"}:
        return ()
    gpus = visible_gpus()
    indices = {device.partition(":")[2] for device in devices}
    if len(indices) > 1 or "" in indices:
        return gpus
    index = int(indices.pop())
    if index >= len(gpus):
        raise ConfigError("device", f"cuda:{index}", f"expected the index of a visible GPU, found {len(gpus)} GPUs")
    return gpus[index : index + 1]


def free_gib(gpu: str) -> float:
    """Return the GiB of a GPU or MIG device, by UUID, that are not in use; infinite if not reported."""
    return _memory_gib(gpu, "free")


def total_gib(gpu: str) -> float:
    """Return the GiB of a GPU or MIG device, by UUID; infinite where the driver does not report them."""
    return _memory_gib(gpu, "total")


def name(gpu: str) -> str:
    """Return the name of a GPU or MIG device, by UUID, e.g. "NVIDIA H200"."""
    import pynvml

    pynvml.nvmlInit()
    return str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByUUID(gpu)))


def mps_is_active() -> bool:
    """Return whether the daemon of the Multi-Process Service runs, so that processes compute on a GPU at the same time.

    Its pipes are in CUDA_MPS_PIPE_DIRECTORY and stay when it ends, so its process is looked for, too. A container may
    have the pipes alone: if the variable is set, the pipes suffice.
    """
    given = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
    if not (Path(given or "/tmp/nvidia-mps") / "control").exists():
        return False
    return bool(given) or any(_is_of_mps(process) for process in Path("/proc").glob("[0-9]*"))


def _is_of_mps(process: Path) -> bool:
    try:
        return (process / "comm").read_text().startswith("nvidia-cuda-mps")
    except OSError:  # it has just ended
        return False


def _memory_gib(gpu: str, which: str) -> float:
    import pynvml

    pynvml.nvmlInit()
    try:
        info = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(gpu))
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission):  # GPU and CPU share it; in a container
        return math.inf
    return float(getattr(info, which)) / 2**30


def device_files() -> list[Path]:
    """Return the driver's files of whole GPUs, which a container has even where it cannot ask the driver."""
    return [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()]


def _uuid(handle: Any) -> str:
    import pynvml

    return str(pynvml.nvmlDeviceGetUUID(handle))


def _devices(handle: Any) -> Iterator[str]:
    """Return what CUDA can use of a GPU: itself, or in MIG mode its MIG devices."""
    import pynvml

    if not _is_split(handle):
        yield _uuid(handle)
        return
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield _uuid(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except pynvml.NVMLError_NotFound:
            continue


def _is_split(handle: Any) -> bool:
    import pynvml

    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission):
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _listed(listed: str, gpus: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    found: list[str] = []
    for word in listed.split(","):
        named = _named(word.strip(), gpus)
        if not named:
            break
        found += named
    return tuple(found) if len(set(found)) == len(found) else ()


def _named(word: str, gpus: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the devices that one entry names: a GPU's index, or the unique beginning of a UUID."""
    if index := re.match(r"\+?(\d+)", word):  # CUDA reads it with strtoul, which ignores what follows the digits
        return tuple(gpus.values())[int(index[1])] if int(index[1]) < len(gpus) else ()
    known = {**gpus, **{device: (device,) for device in chain(*gpus.values())}}
    is_uuid = word.startswith(("GPU-", "MIG-"))
    matches = [devices for uuid, devices in known.items() if is_uuid and uuid.startswith(word)]
    return matches[0] if len(matches) == 1 else ()
