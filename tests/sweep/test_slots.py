import os

import pytest

from headsweep.errors import ConfigError
from headsweep.sweep.gpus import visible_gpus
from headsweep.sweep.slots import Slots

CORES = len(os.sched_getaffinity(0))


def test_without_gpus_the_cores_are_divided_among_the_slots():
    slots = Slots.of_this_machine(None, None, runs=100, gpus=())
    assert (slots.count, slots.threads, slots.gpu(0)) == (CORES, 1, None)


def test_one_slot_per_gpu_and_no_more_slots_than_runs():
    gpus = ("GPU-a", "GPU-b", "GPU-c")
    slots = Slots.of_this_machine(None, None, runs=9, gpus=gpus)
    assert [slots.gpu(slot) for slot in range(slots.count)] == list(gpus)
    assert Slots.of_this_machine(None, None, runs=1, gpus=gpus).count == 1


def test_more_slots_than_gpus_share_them():
    slots = Slots.of_this_machine(4, 2, runs=9, gpus=("GPU-a", "GPU-b"))
    assert [slots.gpu(slot) for slot in range(slots.count)] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]
    assert slots.threads == 2


def test_the_number_of_planned_runs_decides_the_threads():
    """Not the number still missing: a continued run must sum in the same order as before."""
    assert Slots.of_this_machine(1, None, runs=9, gpus=()).threads == CORES


@pytest.mark.parametrize(
    ("listed", "found"), [("0,2", ("0", "2")), ("GPU-1234", ("GPU-1234",)), ("", ()), ("-1", ()), ("1, 3", ("1", "3"))]
)
def test_what_cuda_visible_devices_lists_is_what_may_be_used(monkeypatch, listed, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == found


@pytest.mark.parametrize("given", [0, -1, "many", 1.5])
def test_a_number_of_slots_that_is_none_is_refused(given):
    with pytest.raises(ConfigError, match=f"hydra.launcher.slots={given}: want a whole number of at least 1, or null"):
        Slots.of_this_machine(given, None, runs=9, gpus=())
