"""Memory and time of jobs from the records of finished runs; sbatch is a script that keeps what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import Sbatch, asked, sweep_of

from commands import TINY_RUN
from composing import compose_run
from factories import hand_made
from headsweep.config.launcher.launchers import parse_launcher
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import ConfigError
from headsweep.launch.slurm.launcher import SlurmLauncher
from headsweep.launch.slurm.recorded_needs import _rounded
from headsweep.launch.slurm.window import submit_some
from headsweep.plan.past_costs import plain
from headsweep.plan.plan import make_plan
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult

Make = Callable[..., RunFolder]


@pytest.fixture
def settings(settings: SlurmConfig) -> SlurmConfig:
    """Jobs without a GPU, as those of the records."""
    return replace(settings, gpus=0, memory="64GB", warning=60, from_records=["memory", "time"])


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Make a run of a head and a duration; with `minutes`, one that has finished."""

    def make(name: str, head: str = "ga", epochs: int = 10, minutes: float = 0, **more: object) -> RunFolder:
        config = {"head": {"name": head}, "heads": 1, "duration": f"{epochs} epochs", "batch_size": 32}
        folder = hand_made(tmp_path / "outputs", name, config)
        if minutes:
            finish(folder, epochs, minutes, **more)
        return folder

    return make


def finish(folder: RunFolder, epochs: int, minutes: float, gib: float = 2, device: str = "cpu (x86)", ranks: int = 1):
    """Let a run have taken 100 steps an epoch; a fifth of its time went into evaluations."""
    for epoch in range(1, epochs + 1):
        clock = {"time": 60 * minutes * epoch / epochs + 1000}
        folder.metrics_log.append(Entry(epoch, 100 * epoch, {}, clock))
    clock = {"train_seconds": 0.8 * 60 * minutes, "peak_memory_gib": gib}
    place = {"device": device, "ranks": ranks}
    folder.finish(RunResult("finished", {}, epochs, 100 * epochs, clock, place))


def submitted(sbatch: Sbatch) -> list[list[str]]:
    return [[word for word in asked(file) if not word.startswith("array")] for file in sbatch.files()]


def test_cells_ask_for_what_runs_of_their_cost_used_and_a_margin(sbatch: Sbatch, settings, made: Make, capsys):
    """A quarter more memory and 1 GB, half as much more time and 6 minutes; twice the epochs take twice the time."""
    made("short", "ga", epochs=10, minutes=10, gib=3)
    made("small", "gap", epochs=10, minutes=4, gib=0.5)
    made("slower", "gap", epochs=5, minutes=4, gib=0.4)
    runs = [made("a", "ga", 10), made("b", "ga", 20), made("c", "gap", 10), made("d", "seqpool", 10)]
    submit_some(sweep_of(runs), runs, settings, {})
    assert submitted(sbatch) == [
        ["mem=5GB", "time=25"],  # 1.25 * 3 + 1, 1.5 * 10 + 6
        ["mem=5GB", "time=40"],
        ["mem=2GB", "time=20"],  # of the larger memory and the slower run
        ["mem=64GB", "time=240"],
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "1 run: memory=5GB time=25 (by 1 finished run of this cost on CPUs: 3.0 GiB, 10 min a run)",
        "1 run: memory=5GB time=40 (by 1 finished run of this cost on CPUs: 3.0 GiB, 20 min a run)",
        "1 run: memory=2GB time=20 (by 2 finished runs of this cost on CPUs: 0.5 GiB, 8 min a run)",
        "1 run: memory=64GB time=240 (no run of this cost has finished on CPUs)",
    ]


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"from_records": []}, ["mem=64GB", "time=240"]),
        ({"from_records": ["time"]}, ["mem=64GB", "time=25"]),
        ({"from_records": ["memory"]}, ["mem=5GB", "time=240"]),
        ({"needs": ["head=ga: time=90"]}, ["mem=5GB", "time=90"]),  # what a need sets stays
        ({"runs_per_job": 4, "slots": 2}, ["mem=10GB", "time=40"]),  # two at a time, twice; 2 * 1.5 * 10 + 6
        ({"gpus": 1}, ["gpus-per-node=1", "mem=64GB", "time=240"]),  # no run has finished on a GPU
        ({"distributed": True, "nodes": 2}, ["mem=64GB", "time=240"]),  # nor on two nodes
        ({"warning": 600}, ["mem=5GB", "time=30"]),  # time in which it does not train
    ],
)
def test_what_is_asked_for_depends_on_what_a_job_is(changes, given, sbatch: Sbatch, settings, made: Make):
    made("past", minutes=10, gib=3)
    runs = [made("a")]
    submit_some(sweep_of(runs), runs, replace(settings, **changes), {})
    assert submitted(sbatch) == [given]


def test_a_run_that_was_stopped_asks_for_the_time_that_is_left(sbatch: Sbatch, settings, made: Make):
    made("past", minutes=60)
    run = made("a")
    run.metrics_log.append(Entry(8, 800, {}, {"time": 5.0}))
    submit_some(sweep_of([run]), [run], settings, {})
    assert submitted(sbatch) == [["mem=4GB", "time=25"]], "of 12 minutes, not of 60"


def test_no_more_time_is_asked_for_than_the_partition_allows(sbatch: Sbatch, settings, made: Make):
    """A job that needs more goes on, requeued."""
    sbatch.write("sinfo", "echo 'main*|1:00:00'")
    made("past", minutes=600)
    runs = [made("a")]
    submit_some(sweep_of(runs), runs, settings, {})
    assert submitted(sbatch) == [["mem=4GB", "time=60"]]


def test_records_of_a_time_out_and_of_finished_runs_agree(sbatch: Sbatch, settings, made: Make, capsys):
    """After a time-out, the longer of both counts."""
    from test_more_time import answer_jobs

    made("past", minutes=10)
    runs = [made("a")]
    sweep = sweep_of(runs)
    submit_some(sweep, runs, settings, {})
    answer_jobs(sbatch, sweep, "TIMEOUT")
    submit_some(sweep, runs, settings, {})
    assert [words[1] for words in submitted(sbatch)] == ["time=25", "time=50"]
    assert "1 run timed out after 25 minutes and gets 50 minutes" in capsys.readouterr().out


def test_plan_check_and_dry_run_show_the_same(sbatch: Sbatch, settings, tmp_path: Path, capsys):
    sbatch.write("scontrol", "echo ClusterName = lion")
    past, new = (compose_run(*TINY_RUN, f"seed={seed}", f"paths.output={tmp_path / 'out'}") for seed in (0, 1))
    finish(hand_made(tmp_path / "out", "past", plain(make_plan([past]).configs[0])), 10, 10, gib=3)
    plan, launcher = make_plan([new]), SlurmLauncher(settings)
    launcher.prepare([new])
    launcher.accept(plan)
    assert [asked(file) for file in sbatch.files("asked")] == [["mem=5GB", "time=40"]]
    line = "1 run: memory=5GB time=40 (by 1 finished run of this cost on CPUs: 3.0 GiB, 20 min a run)"
    assert launcher.forecast(plan) == [line]
    shown = SlurmLauncher(replace(settings, dry_run=True)).dry_run(plan)
    assert shown is not None and asked(shown) == ["mem=5GB", "time=40"]
    assert capsys.readouterr().out == f"{line}\n"
    assert SlurmLauncher(replace(settings, from_records=[])).forecast(plan) == []


def test_only_memory_and_time_are_recorded(settings: SlurmConfig):
    keys = {**vars(settings), "from_records": ["gpus"]}
    with pytest.raises(ConfigError, match=r"hydra.launcher.from_records=\['gpus'\]: expected a list of memory, time"):
        parse_launcher(SlurmConfig, keys)


@pytest.mark.parametrize(("value", "rounded"), [(0.2, 1), (7.5, 8), (8.1, 10), (13, 14), (16.5, 20), (33, 40)])
def test_similar_needs_are_rounded_to_the_same(value: float, rounded: int):
    assert _rounded(value) == rounded
