"""`slots=auto`: as many runs at a time as train most images a second, and the same number for the same command."""

import json
import os
import signal
from dataclasses import replace
from functools import cache, partial
from multiprocessing import Pipe

import pytest
import torch

from commands import TINY_RUN
from composing import compose_run
from headsweep.autotune import slots
from headsweep.autotune.launcher import AutotunedLauncher
from headsweep.autotune.measurement import Unmeasured
from headsweep.autotune.slots import AutoSlots, Speeds
from headsweep.autotune.throughput import Throughput
from headsweep.config.study.expansion import local_defaults
from headsweep.errors import ConfigError, Interrupted
from headsweep.launch.local import gpus
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.slots import Slots
from headsweep.launch.run_sweep import run_sweep
from headsweep.launch.signals import StopRequest
from headsweep.plan.lookup import Lookup
from headsweep.run import trial
from headsweep.tracking.run_folder import RunFolder

SHORT = TINY_RUN
CORES = 8
GPU = ("GPU-a",)


def tiny(output, *overrides):
    run = composed(*overrides)
    return replace(run, paths=replace(run.paths, output=str(output)))


@cache
def composed(*overrides):
    return Lookup().resolve([compose_run(*SHORT, "tracking=none", *overrides)])[0]


class Bench:
    """Stands in for what measures: says the speeds that it was given, by number of runs, and what was asked."""

    def __init__(self, speeds):
        self.speeds, self.asked = speeds, []

    def __call__(self, processes, run, gpu, timeout):
        self.gpu = gpu
        return self

    def images_per_second(self, count, threads, request):
        self.asked.append((count, threads))
        if isinstance(self.speeds[count], str):
            raise Unmeasured(self.speeds[count])
        return self.speeds[count]


@pytest.fixture
def decide(tmp_path, monkeypatch):
    """What is decided, and said, for a grid on a machine of 8 cores where so many runs at a time are so fast."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(CORES)))
    monkeypatch.setattr(gpus, "name", lambda gpu: "NVIDIA H200")
    monkeypatch.setattr(gpus, "mps_is_active", lambda: False)

    def decide(speeds, on=GPU, runs=9, missing=9, threads=None, **overrides):
        bench, said = Bench(speeds), []
        monkeypatch.setattr(slots, "Throughput", bench)
        monkeypatch.setattr(slots, "measure_needs", lambda *given: None)
        first = tiny(tmp_path, *(f"{key}={value}" for key, value in overrides.items()))
        auto = AutoSlots.of_this_machine(first, threads, runs, on, None)
        return auto.decided(None, [RunFolder(tmp_path)] * missing, None, said.append), bench, said

    return decide


TURNS = "; without MPS, runs on a GPU take turns"
FAST = {1: 11_200.0, 2: 17_900.0, 3: 17_500.0, 4: 17_950.0}


def test_the_smallest_number_within_three_percent_of_the_best_is_chosen(decide):
    slots, bench, said = decide(FAST)
    assert slots == Slots(2, CORES // 2, GPU)
    assert bench.gpu == "GPU-a"
    assert said[-1] == f"slots: 2 runs per GPU (1: 11,200, 2: 17,900, 3: 17,500, 4: 17,950 images/s{TURNS})"
    assert Speeds({1: 9.69, 2: 10.0}).best == 2
    assert Speeds({1: 9.71, 2: 10.0}).best == 1


def test_runs_have_the_threads_while_they_are_measured_that_they_will_have(decide):
    _, bench, _ = decide(FAST)
    assert bench.asked == [(1, 8), (2, 4), (3, 2), (4, 2)]
    _, bench, _ = decide(FAST, threads=3)
    assert bench.asked == [(1, 3), (2, 3), (3, 3), (4, 3)]


def test_on_the_cpu_there_are_no_more_runs_than_cores_for_their_threads(decide):
    speeds = dict.fromkeys(range(1, 9), 5.0)
    slots, bench, said = decide(speeds, on=())
    assert [count for count, _ in bench.asked] == [1, 2, 3, 4, 8]
    assert slots == Slots(1, CORES, ())
    assert said[-1] == "slots: 1 run at a time (1: 5.0, 2: 5.0, 3: 5.0, 4: 5.0, 8: 5.0 images/s)"
    _, bench, _ = decide(speeds, on=(), threads=3)
    assert bench.asked == [(1, 3), (2, 3)]
    _, bench, _ = decide(speeds, on=(), runs=2)
    assert [count for count, _ in bench.asked] == [1, 2]


def test_several_gpus_are_measured_on_one(decide):
    slots, bench, said = decide(FAST, on=("GPU-a", "GPU-b"))
    assert slots == Slots(4, 2, ("GPU-a", "GPU-b"))
    assert bench.asked == [(1, 4), (2, 2), (3, 1), (4, 1)]
    assert said[-1].startswith("slots: 2 runs on each of 2 GPUs (")


def test_out_of_memory_is_the_limit(decide):
    slots, _, said = decide({1: 100.0, 2: 180.0, 3: "out of memory"})
    assert slots.count == 2
    assert said[-1] == f"slots: 2 runs per GPU (1: 100, 2: 180 images/s, 3: out of memory{TURNS})"
    _, bench, said = decide({})
    assert bench.asked == []
    assert said == [f"slots: 2 runs per GPU (measured before: 1: 100, 2: 180 images/s, 3: out of memory{TURNS})"]


def test_a_run_that_cannot_train_is_not_what_ends_the_command(decide):
    slots, _, said = decide({1: "the disk is full"})
    assert slots == Slots(1, CORES, GPU)
    assert said[-1] == "slots: 1 run per GPU (not measured: the disk is full)"
    assert decide(FAST)[0].count == 2  # nothing was remembered


def test_the_same_command_has_the_same_slots_and_threads_whatever_is_missing(decide):
    first, _, _ = decide(FAST)
    for missing in (8, 1):
        again, bench, said = decide({}, missing=missing)
        assert (again, bench.asked) == (first, [])
        assert "(measured before: 1: 11,200" in said[0]


@pytest.mark.parametrize("other", [{"on": ()}, {"threads": 2}, {"runs": 2, "missing": 2}, {"heads": 4}])
def test_what_was_measured_holds_for_the_same_work_on_the_same_machine_alone(decide, other):
    decide(FAST)
    _, bench, _ = decide(dict.fromkeys(range(1, 9), 5.0), **other)
    assert bench.asked


def test_seeds_and_durations_are_the_same_work(decide):
    decide(FAST)
    assert decide({}, seed=3, duration="'7 epochs'")[1].asked == []


def test_another_gpu_torch_or_mps_is_another_machine(decide, monkeypatch):
    decide(FAST)
    for module, name, value in (
        (gpus, "name", lambda gpu: "NVIDIA H100"),
        (gpus, "mps_is_active", lambda: True),
        (slots, "version", lambda package: "9.9"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            _, bench, said = decide(FAST)
            assert bench.asked
            assert (" with MPS (" in said[-1]) is (name == "mps_is_active")
            assert said[-1].endswith(f"{TURNS})") is (name != "mps_is_active")


@pytest.mark.parametrize(("on", "missing"), [(GPU, 1), (("GPU-a", "GPU-b"), 2), ((), 1)])
def test_nothing_is_measured_where_one_run_at_a_time_is_all_there_is(decide, on, missing):
    slots, bench, said = decide({}, on=on, missing=missing)
    assert (slots.count, bench.asked, said) == (max(1, len(on)), [], [])


def test_a_plan_counts_with_what_was_measured(decide, tmp_path):
    auto = AutoSlots.of_this_machine(tiny(tmp_path), None, 9, GPU, None)
    assert auto.expected().count == 1
    decide(FAST)
    assert auto.expected().count == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"speed": 3}'])
def test_a_damaged_memory_is_none(content, decide, tmp_path):
    decide(FAST)
    (tmp_path / "measured.json").write_text(content)
    assert decide(FAST)[1].asked
    assert json.loads((tmp_path / "measured.json").read_text())["speed"]


def test_runs_per_gpu_cannot_be_given_too(tmp_path):
    with pytest.raises(
        ConfigError, match=r"slots=auto: expected no runs_per_gpu, which it determines; give one of the two"
    ):
        AutoSlots.of_this_machine(tiny(tmp_path), None, 9, GPU, 2)


class Clock:
    """Each look at it is a second later."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1.0
        return self.now


class Launcher:
    """The other end of a process's connection: asks for the window from 10 to 14 s, and leaves with the answer."""

    class Left(Exception):  # noqa: N818 - it is no error
        pass

    def __init__(self):
        self.heard, self.patience = [], 3

    def send(self, said):
        self.heard.append(said)
        if len(self.heard) == 2:
            raise self.Left

    def poll(self):
        self.patience -= 1
        return not self.patience

    def recv(self):
        return 10.0, 14.0


@pytest.mark.slow
def test_a_process_counts_the_steps_in_the_window_that_all_were_given(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "time", Clock())  # each of the steps, of 32 images, takes a second
    launcher = Launcher()
    with pytest.raises(Launcher.Left):
        trial.time_steps(tiny(tmp_path, "duration='2 steps'", "schedule.warmup='0 steps'"), launcher)
    assert launcher.heard == [1.0, 32.0]
    assert list(tmp_path.iterdir()) == []


def test_on_a_gpu_a_step_is_over_when_the_device_says_so_and_the_host_does_not_wait_for_the_next(monkeypatch):
    told = []

    class Event:
        """As CUDA's; says which step it was recorded after, and when someone waits for it."""

        def __init__(self, blocking):
            assert blocking

        def record(self, stream):
            assert stream == "the stream of cuda:1"
            self.step = told[-1]

        def synchronize(self):
            told.append(f"{self.step} is over")

    class OnGpu:
        device = torch.device("cuda:1")

        def rehearsal(self):
            for step in ("first", "second", "third", "fourth"):
                told.append(step)
                yield

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"the stream of {device}")
    assert len(list(trial.step_ends(OnGpu()))) == 2
    assert told == ["first", "second", "third", "first is over", "fourth", "second is over"]


class Crew:
    """Processes that say what they are given to say, one after the other, and hear what they are told."""

    def __init__(self, *says):
        self.says, self.killed, self.ends = list(says), 0, []

    def start(self, *task):
        ours, theirs = Pipe()
        for word in self.says.pop(0):
            theirs.send(word)
        self.ends.append(theirs)
        return self, ours

    def kill(self):
        self.killed += 1

    def join(self):
        pass


def test_the_speeds_of_all_processes_over_the_same_seconds_are_added(tmp_path):
    crew = Crew([0.5, 100.0], [2.0, 40.0])
    with StopRequest() as request:
        assert Throughput(crew, tiny(tmp_path), None).images_per_second(2, 1, request) == 140.0
    (start, end), other = (connection.recv() for connection in crew.ends)
    assert (start, end) == other
    assert end - start == pytest.approx(4 * 2.0)  # four of the longest steps
    assert crew.killed == 2


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory"),
        ("RuntimeError: CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`", "out of memory"),
        ("RuntimeError: no kernel\nException raised from here", "RuntimeError: no kernel"),
    ],
)
def test_a_process_that_fails_ends_the_measurement(tmp_path, said, told):
    crew = Crew([0.5, 100.0], [said])
    with StopRequest() as request, pytest.raises(Unmeasured, match=f"^{told}$"):
        Throughput(crew, tiny(tmp_path), None).images_per_second(2, 1, request)
    assert crew.killed == 2


def test_ctrl_c_ends_the_measurement_and_its_processes(tmp_path):
    crew = Crew([], [])
    with StopRequest() as request, pytest.raises(Interrupted) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        Throughput(crew, tiny(tmp_path), None).images_per_second(2, 1, request)
    assert (stop.value.signal, crew.killed) == (signal.SIGINT, 2)


def test_a_process_that_says_nothing_is_not_waited_for_for_ever(tmp_path):
    crew = Crew([])
    with StopRequest() as request, pytest.raises(Unmeasured, match=r"no step in 0\.001 minutes"):
        Throughput(crew, tiny(tmp_path), None, timeout=0.001).images_per_second(1, 1, request)


def test_mps_is_active_while_its_daemon_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not gpus.mps_is_active()
    (tmp_path / "control").touch()
    assert gpus.mps_is_active()


@pytest.mark.slow
def test_true_processes_are_measured_and_leave_no_trace(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(slots, "Throughput", partial(Throughput, seconds=0.1))
    runs = [tiny(tmp_path, f"seed={seed}", "duration='1 steps'", "schedule.warmup='0 steps'") for seed in range(2)]
    bad = tiny(tmp_path, "batch_size=200")
    with (
        StopRequest() as request,
        pytest.raises(Unmeasured, match=r"^batch_size=200: expected at most 128"),
    ):
        Throughput(Processes(), bad, None).images_per_second(2, 1, request)
    assert list(tmp_path.iterdir()) == []
    run_sweep(runs, AutotunedLauncher(replace(local_defaults(), slots="auto")))
    assert "slots: measuring 1, 2 runs at a time" in capfd.readouterr().err
    (known,) = json.loads((tmp_path / "measured.json").read_text())["speed"].values()
    assert sorted(known["by_count"]) == ["1", "2"]
    assert min(known["by_count"].values()) > 0
    assert [RunFolder(path).result().steps for path in tmp_path.glob("runs/*")] == [1, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_true_processes_share_a_gpu(tmp_path):
    run, gpu = tiny(tmp_path, "device=cuda"), gpus.visible_gpus()[0]
    with StopRequest() as request:
        throughput = Throughput(Processes(), run, gpu, seconds=0.5)
        assert min(throughput.images_per_second(count, 1, request) for count in (1, 2)) > 0
