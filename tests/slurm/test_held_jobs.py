"""Jobs that SLURM holds after a failed launch, and what `retry` and `watch` print about runs that have no job."""

from __future__ import annotations

import fcntl
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from scripted import Queue, sweep_of

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import UserError
from headsweep.launch.follow import _Lines, _Refill
from headsweep.launch.slurm.launcher import submit_again
from headsweep.launch.slurm.settings import record
from headsweep.launch.slurm.window import refill, submit_some
from headsweep.status import queue, submissions, waiting
from headsweep.status.job_state import HELD
from headsweep.status.read import read_sweep
from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder
from scripts import Scripts


@pytest.fixture
def slurm(scripts: Scripts) -> Queue:
    """A cluster of scripts with a queue."""
    return Queue(scripts.place)


@pytest.fixture
def sweep(runs: list[RunFolder], settings: SlurmConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of six runs, of which none is submitted yet; three jobs may be in the queue."""
    monkeypatch.setattr("headsweep.launch.slurm.launcher.check_frozen", lambda folder: None)
    folder = sweep_of(runs)
    atomic_files.write_json(folder / "plan.json", {"runs": [run.path.name for run in runs]})
    record(folder, replace(settings, max_submitted=3))
    return folder


def hold(slurm: Queue, element: int, reason: str = HELD) -> str:
    """Let the queue show an element of its only array as held; return its number."""
    path = slurm.place / "jobs"
    lines = path.read_text().splitlines()
    lines[element] = f"{lines[element].rpartition('|')[0]}|{reason}"
    path.write_text("".join(f"{line}\n" for line in lines))
    return "_".join(lines[element].split("|")[1:3])


def test_retry_releases_a_job_that_slurm_holds_and_submits_no_second_one(slurm: Queue, sweep: Path, runs, capsys):
    submit_again(sweep, runs[:3])
    number = hold(slurm, 1)
    hold(slurm, 2, "JobHeldUser")
    assert f"job {number} is pending: {HELD}; `headsweep retry`" in read_sweep(sweep).runs[1].note
    capsys.readouterr()
    submit_again(sweep, runs[:3])
    assert [line for line in slurm.lines("asked") if "release" in line] == [f"release {number}"]
    assert len(submissions.jobs(sweep)) == 3, "no second job"
    assert capsys.readouterr().out.startswith(
        f"released job {number}, which SLURM held after a failed launch\n"
        "0 of 3 runs of one are submitted again; 3 still queued, training or ending\n"
    )


def test_a_job_of_chosen_runs_alone_is_released_and_none_of_another_user(slurm: Queue, sweep, runs, monkeypatch):
    submit_again(sweep, runs[:3])
    hold(slurm, 1)
    assert queue.release(runs[:1]) == [] != queue.release(runs[1:2])
    monkeypatch.setattr(submissions, "this_user", lambda: "bob")
    assert queue.release(runs) == []


def test_a_cluster_that_does_not_release_is_named(slurm: Queue, sweep: Path, runs):
    submit_again(sweep, runs[:3])
    number = hold(slurm, 0)
    slurm.write("scontrol", '[ "$1" != release ] || exit 1; echo ClusterName = lion')
    with pytest.raises(UserError, match=f"scontrol release {number} failed; cancel these jobs"):
        submit_again(sweep, runs[:3])


def test_watch_prints_a_line_when_a_job_is_held(slurm: Queue, sweep: Path, runs):
    submit_again(sweep, runs[:3])
    printed = io.StringIO()
    show = _Lines(Console(file=printed))
    show(read_sweep(sweep))
    before = printed.getvalue().count("\n")
    hold(slurm, 1)
    show(read_sweep(sweep))
    show(read_sweep(sweep))
    assert printed.getvalue().count("\n") == before + 1 and HELD in printed.getvalue().splitlines()[-1]


def test_retry_counts_runs_that_wait_apart_from_those_with_a_job(slurm: Queue, sweep: Path, runs, capsys):
    submit_again(sweep, runs)
    printed = capsys.readouterr().out
    assert "\n3 of 6 runs of one are submitted again\n3 runs wait until more jobs may be in the queue;" in printed


def test_watch_repeats_no_line_about_runs_that_wait(slurm: Queue, sweep: Path, settings, runs, capsys):
    """Of two batches with settings of their own, for which there is no room."""
    full = replace(settings, max_submitted=1)
    for member in runs[:4]:
        submit_some(sweep, [member], replace(full, time=60 + 30 * runs.index(member)), {})
    capsys.readouterr()
    slurm.write("sbatch", "echo 'sbatch: error: Requested node configuration is not available' >&2", "exit 1")
    start_more, view = _Refill(sweep, refill), read_sweep(sweep)
    for attempt in range(3):
        start_more(replace(view, runs=view.runs[attempt:]))  # each time something has changed
    assert capsys.readouterr().out == ""
    slurm.end()
    for attempt in range(3):
        start_more(replace(view, runs=view.runs[attempt:]))
    shown = capsys.readouterr()
    assert shown.err.count("tried again every") == 1


def test_an_attempt_that_is_interrupted_shows_what_it_has_submitted(sweep: Path, runs, capsys):
    def interrupted(sweep: Path) -> None:
        print("job 11: ga1-digits-seed0")
        raise KeyboardInterrupt

    waiting.record(sweep, [waiting.Batch([runs[0].path.name])])
    with pytest.raises(KeyboardInterrupt):
        _Refill(sweep, interrupted)(read_sweep(sweep))
    assert capsys.readouterr().out == "job 11: ga1-digits-seed0\n"


def test_a_damaged_file_of_a_launcher_does_not_hide_the_other_sweeps(slurm: Queue, sweep: Path, runs):
    submit_again(sweep, runs[:3])
    (sweep / "launchers").mkdir()
    with (sweep / "launchers" / "here-1.json").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("{")
        file.flush()
        assert [run.note for run in read_sweep(sweep).runs[3:]] == [""] * 3


def test_runs_that_were_withdrawn_while_they_waited_are_shown_with_what_submits_them(slurm: Queue, sweep, runs):
    submit_again(sweep, runs)
    assert len(waiting.of_this_user(sweep)) == 3
    queue.cancel(sweep, set(waiting.of_this_user(sweep)))
    view = read_sweep(sweep)
    assert [run.note for run in view.runs[3:]] == ["has no job; `headsweep retry one` submits it"] * 3
    assert not any("has no job" in run.note for run in view.runs[:3])
