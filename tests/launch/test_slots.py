import os
import resource

import pytest

from headsweep.errors import ConfigError
from headsweep.launch.local.slots import Slots

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


def test_so_many_runs_per_gpu_are_slots_in_the_order_of_the_gpus():
    slots = Slots.of_this_machine(None, None, runs=9, gpus=("GPU-a", "GPU-b"), runs_per_gpu=2)
    assert [slots.gpu(slot) for slot in range(slots.count)] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]
    assert Slots.of_this_machine(4, None, runs=9, gpus=("GPU-a", "GPU-b"), runs_per_gpu=2) == slots
    assert Slots.of_this_machine(None, None, runs=3, gpus=("GPU-a", "GPU-b"), runs_per_gpu=2).count == 3


@pytest.mark.parametrize(
    ("count", "gpus", "message"),
    [
        (3, ("GPU-a", "GPU-b"), "expected 2 GPUs x 2 = 4 slots, found hydra.launcher.slots=3; give one of the two"),
        (None, (), "expected null, as the runs have no GPU here; give hydra.launcher.slots=N"),
    ],
)
def test_runs_per_gpu_that_cannot_be_are_refused(count, gpus, message):
    with pytest.raises(ConfigError, match=f"hydra.launcher.runs_per_gpu=2: {message}"):
        Slots.of_this_machine(count, None, runs=9, gpus=gpus, runs_per_gpu=2)


def test_the_number_of_planned_runs_decides_the_threads():
    """Not the number still missing: a continued run must sum in the same order as before."""
    assert Slots.of_this_machine(1, None, runs=9, gpus=()).threads == CORES


def test_slots_for_which_a_launcher_may_not_open_enough_files_are_refused(monkeypatch):
    """Without a number the cores decide, as far as the files go."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(384)))
    reference = r"expected at most 68 runs at a time with this limit of open files \(ulimit -n\)"
    with pytest.raises(ConfigError, match=f"hydra.launcher.slots=100: {reference}"):
        Slots.of_this_machine(100, None, runs=999, gpus=())
    assert Slots.of_this_machine(100, None, runs=9, gpus=()).count == 9
    assert Slots.of_this_machine(None, None, runs=999, gpus=()).count == 68
