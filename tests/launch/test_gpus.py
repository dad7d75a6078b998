"""The GPUs that runs may use are those that CUDA would show.

No test machine has four GPUs, one of them split by MIG: a small stand-in for the module `pynvml` says that it has.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
import torch

from headsweep.config import RunConfig
from headsweep.errors import ConfigError, UserError
from headsweep.launch.local import gpus
from headsweep.launch.local.gpus import free_gib, gpus_for, name, total_gib, visible_gpus

ALL = ("GPU-a1", "GPU-a2", "GPU-b3", "GPU-c4")
MIG = ("MIG-d1", "MIG-d2")


class Driver(ModuleType):
    """NVML with whole GPUs, of which the last may be split."""

    NVML_DEVICE_MIG_ENABLE = 1
    NVMLError = type("NVMLError", (Exception,), {})
    NVMLError_NotSupported = type("NVMLError_NotSupported", (NVMLError,), {})
    NVMLError_NoPermission = type("NVMLError_NoPermission", (NVMLError,), {})
    NVMLError_NotFound = type("NVMLError_NotFound", (NVMLError,), {})

    def __init__(self, split: bool = False) -> None:
        self.split = split

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(ALL)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return ALL[index]

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return handle

    def nvmlDeviceGetMigMode(self, handle):  # noqa: N802
        if handle == ALL[0]:
            raise self.NVMLError_NotSupported
        return int(self.split and handle == ALL[-1]), 0

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):  # noqa: N802
        if index not in (1, 4):
            raise self.NVMLError_NotFound
        return MIG[index == 4]

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        if handle == ALL[0]:
            raise self.NVMLError_NotSupported
        return SimpleNamespace(free=3 * 2**30, total=8 * 2**30)

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return f"NVIDIA {handle}"


def run_on(device: str) -> RunConfig:
    return cast(RunConfig, SimpleNamespace(device=device))


@pytest.fixture
def shown(monkeypatch):
    def show(listed: str | None, split: bool = False) -> tuple[str, ...]:
        monkeypatch.setitem(sys.modules, "pynvml", Driver(split))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if listed is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        return visible_gpus()

    return show


def as_torch_reads(listed: str) -> tuple[str, ...]:
    """The GPUs that torch counts without starting CUDA, by the rules of CUDA as torch knows them."""
    named = torch.cuda._parse_visible_devices()
    if named and isinstance(named[0], str):
        named = torch.cuda._transform_uuid_to_ordinals(named, list(ALL))
    return tuple(ALL[at] for at in named[: next((n for n, at in enumerate(named) if at >= len(ALL)), None)])


LISTS = [
    "0",
    "2,0",
    "3,1,2,0",
    "",
    " ",
    "-1",
    "0,-1,2",
    "0,9,2",
    "9",
    "1,x,2",
    "x,1",
    "0,0",
    "1,2,1",
    "1x",
    ",0",
]
LISTS += ["+1", "GPU-b", "GPU-c,GPU-a1", "GPU-a", "GPU-b,GPU-a,GPU-c", "GPU-x,GPU-b", "GPU-b,GPU-b3", "GPU-b3,GPU-b3"]


@pytest.mark.parametrize("listed", LISTS)
def test_a_list_is_read_as_torch_reads_it_and_names_become_uuids(shown, listed):
    assert shown(listed) == as_torch_reads(listed)


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (None, (*ALL[:3], *MIG)),
        ("1,3", ("GPU-a2", *MIG)),
        ("GPU-c", MIG),
        ("MIG-d2", ("MIG-d2",)),
        ("MIG-d2,MIG-d1,MIG-d9,0", ("MIG-d2", "MIG-d1")),
        ("MIG-d", ()),
        ("3,MIG-d1", ()),
        ("", ()),
    ],
)
def test_in_place_of_a_gpu_in_mig_mode_are_its_mig_devices(shown, listed, found):
    assert shown(listed, split=True) == found


def test_without_a_list_every_gpu_is_shown_and_without_a_driver_none(shown, monkeypatch):
    assert shown(None) == ALL
    monkeypatch.undo()
    driver = Driver()
    driver.nvmlInit = lambda: (_ for _ in ()).throw(Driver.NVMLError)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert visible_gpus() == ()


def test_memory_is_in_gib_and_never_short_where_the_driver_does_not_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert free_gib("GPU-b3") == 3.0
    assert total_gib("GPU-b3") == 8.0
    assert free_gib("GPU-a1") == total_gib("GPU-a1") == float("inf")
    assert name("GPU-b3") == "NVIDIA GPU-b3"


def test_runs_that_name_a_gpu_get_that_one_of_the_visible(shown, monkeypatch):
    shown("2,0")
    assert gpus_for([run_on("cuda:1")]) == ("GPU-a1",)
    assert gpus_for([run_on("cuda:0"), run_on("cuda:0")]) == ("GPU-b3",)
    assert gpus_for([run_on("cuda")]) == gpus_for([run_on("auto"), run_on("cuda:1")]) == ("GPU-b3", "GPU-a1")
    assert gpus_for([run_on("cpu")]) == ()
    with pytest.raises(ConfigError, match=r"device=cuda:2: expected the index of a visible GPU, found 2 GPUs"):
        gpus_for([run_on("cuda:2")])


def test_gpus_of_a_silent_driver_are_not_taken_for_none(shown, monkeypatch):
    """A container may have the device files, so torch finds GPUs, but not the driver's library."""
    driver = Driver()
    driver.nvmlInit = lambda: (_ for _ in ()).throw(Driver.NVMLError("Insufficient Permissions"))
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(gpus, "device_files", lambda: [Path("/dev/nvidia0"), Path("/dev/nvidia1")])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(UserError, match=r"found 2 of the files /dev/nvidiaN.*Insufficient.*device=cpu"):
        gpus_for([run_on("auto")])
    assert gpus_for([run_on("cpu")]) == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_for([run_on("auto")]) == ()


def test_a_driver_that_refuses_single_queries_still_lists_its_gpus(monkeypatch):
    def refuse(*_):
        raise Driver.NVMLError_NoPermission

    driver = Driver()
    driver.nvmlDeviceGetMigMode = driver.nvmlDeviceGetMemoryInfo = refuse
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ALL
    assert free_gib("GPU-b3") == float("inf")
