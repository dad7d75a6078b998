"""Runs share a GPU as far as its memory allows.

There is no GPU here: a stand-in for the module `pynvml` has one of 8 GiB, which true processes report that they fill.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from factories import hand_made
from headsweep.autotune import memory_needs
from headsweep.autotune.measurement import Unmeasured
from headsweep.launch.local.gpu_memory import Packing, fits
from headsweep.launch.local.scheduler import Schedule
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult, RunState
from headsweep.training.progress import Progress

GIB = 2**30


@pytest.mark.parametrize(
    ("need", "free", "there", "may"),
    [
        (None, 0.0, [], True),  # alone: whatever it needs
        (99.0, 1.0, [], True),
        (None, 99.0, [(1.0, 1.0)], False),  # not known: alone first
        (1.0, 99.0, [(None, 1.0)], False),  # beside one that is not known
        (3.0, 5.0, [(3.0, 3.0)], True),
        (3.0, 3.0, [(3.0, 3.0)], True),
        (3.0, 2.9, [(3.0, 3.0)], False),
        (3.0, 8.0, [(3.0, 0.0), (3.0, 0.0)], False),  # they have just started
        (3.0, 5.0, [(3.0, 1.0)], True),
        (3.0, 4.9, [(3.0, 1.0)], False),
        (3.0, 3.0, [(3.0, 4.0)], True),  # more than expected frees nothing
    ],
)
def test_a_run_starts_beside_others_if_what_it_needs_is_free_and_not_reserved(need, free, there, may):
    assert fits(need, free, there) is may


@pytest.fixture
def make_run(tmp_path):
    def make(name: str, heads: int = 1) -> RunFolder:
        config = {"heads": heads, "seed": name, "duration": f"{len(name)} epochs"}
        return hand_made(tmp_path, name, config)

    return make


def test_a_run_is_expected_to_need_the_most_that_any_of_its_cost_has_taken(make_run, tmp_path):
    for name, peak in (("a", 2.0), ("bb", 3.0), ("c", 1.0)):
        make_run(name).finish(RunResult("finished", {}, 1, 1, {"peak_gpu_memory_gib": peak}))
    make_run("cpu", heads=2).finish(RunResult("finished", {}, 1, 1, {"peak_memory_gib": 9.0}))
    packing = Packing(tmp_path)
    alike, other, another = make_run("d"), make_run("e", heads=2), make_run("f", heads=2)
    assert (packing.need(alike), packing.need(other)) == (3.0, None)
    packing.observe(other, 5.0)
    packing.observe(alike, 1.0)
    assert (packing.need(alike), packing.need(another)) == (3.0, 5.0)


def test_what_was_measured_counts_until_a_run_of_its_cost_has_ended_an_epoch(make_run, tmp_path):
    packing, folder = Packing(tmp_path), make_run("a")
    packing.store_measurement(packing.cost_class(folder), 2.0)
    later = Packing(tmp_path)
    assert later.need(folder) == 2.0
    later.observe(folder, 1.5)
    assert later.need(folder) == 1.5
    assert later.need(make_run("b", heads=2)) is None


def test_before_runs_share_gpus_each_unmeasured_kind_is_measured_once(make_run, tmp_path, monkeypatch):
    make_run("known").finish(RunResult("finished", {}, 1, 1, {"peak_gpu_memory_gib": 3.0}))
    folders = [make_run("a"), make_run("b", heads=2), make_run("c", heads=2), make_run("d", heads=3)]
    asked, said = [], []

    def memory(processes, run, threads, gpu, request):
        asked.append((run, threads, gpu))
        if run == "d":
            raise Unmeasured("out of memory")
        return 5.0, 1

    monkeypatch.setattr(memory_needs, "memory", memory)
    monkeypatch.setattr(memory_needs, "frozen", lambda folder: folder.path.name)
    for apart in (Slots(2, 3, ("GPU-a", "GPU-b")), Slots(4, 3, ())):
        memory_needs.measure_needs(folders, None, apart, said.append)
    assert (asked, said) == ([], [])
    memory_needs.measure_needs(folders, None, Slots(4, 3, ("GPU-a", "GPU-b")), said.append)
    assert sorted(asked) == [("c", 3, "GPU-a"), ("d", 3, "GPU-a")]
    assert said == ["slots: measuring the memory of 2 kinds of runs"]
    assert [Packing(tmp_path).need(folder) for folder in folders] == [3.0, 5.0, 5.0, None]


class OneGpu:
    """A GPU of 8 GiB: a file for each run on it, with what it has taken."""

    def __init__(self, folder: Path, meet: int) -> None:
        self.folder, self.meet = folder, meet  # a run goes on until so many have been there at a time
        self.log = folder / "log"
        (folder / "runs").mkdir(parents=True)

    def taken(self) -> list[float]:
        found = []
        for path in (self.folder / "runs").glob("*"):
            with suppress(FileNotFoundError):  # a run that has just ended
                found.append(path.read_text())
        return [float(text) for text in found if text]

    def memory(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(free=int((8 - sum(self.taken())) * GIB))

    def start(self, folders: Sequence[RunFolder], gpu: str | None):
        (folder,) = folders
        near, far = multiprocessing.Pipe(duplex=False)
        gib = 3.0 * int(folder.record().config["heads"])
        process = multiprocessing.get_context("fork").Process(target=self.train, args=(folder, gib, far))
        process.start()
        far.close()
        return process, near

    def train(self, folder: RunFolder, gib: float, connection) -> None:
        mine, met = self.folder / "runs" / folder.path.name, self.folder / "met"
        connection.send((0, Progress(0, 2, 0, 2, {}, 0.0)))
        time.sleep(0.5)  # as long as a second may start, wrongly
        mine.write_text(str(gib))
        with self.log.open("a") as file:
            file.write(f"{sum(self.taken())}\n")
        connection.send((0, Progress(1, 2, 1, 2, {"val/top1": 0.5}, gib)))
        for _ in range(200):
            if met.exists() or len(self.taken()) == self.meet:
                met.touch()
                folder.finish(RunResult("finished", {}, 1, 2))
                break
            time.sleep(0.1)
        mine.unlink()


def train(folders: list[RunFolder], gpu: OneGpu, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Train four at a time on the GPU; what was taken of it when a run had taken its part."""
    driver = SimpleNamespace(nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=str, nvmlDeviceGetMemoryInfo=gpu.memory)
    driver.NVMLError_NotSupported = NotImplementedError
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    with Display(len(folders), epoch_lines=False) as display:
        Schedule(folders, Slots(4, 1, ("GPU-a",)), gpu.start, None, display, lambda folder: None)()
    return [float(line) for line in gpu.log.read_text().split()]


@pytest.mark.slow
def test_the_first_of_its_cost_runs_alone_until_it_is_known_and_then_as_many_as_fit(make_run, tmp_path, monkeypatch):
    folders = [make_run(name) for name in "abc"]
    taken = train(folders, OneGpu(tmp_path / "gpu", meet=2), monkeypatch)
    assert (taken[0], max(taken)) == (3.0, 6.0)
    assert {folder.state() for folder in folders} == {RunState.finished}


@pytest.mark.slow
def test_a_run_that_is_larger_than_the_gpu_starts_alone_and_holds_up_none_that_fits(make_run, tmp_path, monkeypatch):
    make_run("before", heads=3).finish(RunResult("finished", {}, 1, 1, {"peak_gpu_memory_gib": 9.0}))
    make_run("too").finish(RunResult("finished", {}, 1, 1, {"peak_gpu_memory_gib": 3.0}))
    small, large, next_ = make_run("a"), make_run("b", heads=3), make_run("c")
    taken = train([small, large, next_], OneGpu(tmp_path / "gpu", meet=2), monkeypatch)
    assert taken == [3.0, 6.0, 9.0]
    assert large.state() is RunState.finished
