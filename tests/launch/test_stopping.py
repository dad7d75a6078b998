"""Runs that are stopped, fail, hang or run out of memory do so alone, with one line, and can be continued."""

import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import programs
from commands import TINY, TINY_RUN, enter, wait_for
from comparing import differences
from composing import compose_run
from factories import by_seed, hand_made, planned
from headsweep.config.launcher.launchers import LocalConfig, parse_launcher
from headsweep.config.study.expansion import local_defaults
from headsweep.errors import ConfigError, FailedRunsError, Interrupted
from headsweep.launch.conclude import conclude
from headsweep.launch.in_process import InProcess
from headsweep.launch.run_sweep import run_sweep
from headsweep.launch.signals import StopRequest
from headsweep.run.train_run import train_folder
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult, RunState
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.training.progress import Busy, Stopped
from programs import Program

SHORT = TINY_RUN
GRID = ["-m", "duration='1 epochs'", "tracking=none", *TINY]
BAD = str(Path(__file__).with_name("sabotage.py"))


def ignore(progress) -> None:
    pass


@pytest.mark.slow
def test_stopped_within_epochs_and_evaluations_it_ends_with_the_same_bits(tmp_path):
    options = ["duration='5 steps'", "ema_decay=0.9", "augmentation=paper", "accumulation=2", "batch_size=32"]
    whole, parts = planned(tmp_path / "whole", *options), planned(tmp_path / "parts", *options)
    train_folder(whole, ignore)
    stops = 0
    while parts.result() is None:
        asked = iter([False] * stops)  # each time a little later
        try:
            train_folder(parts, ignore, lambda asked=asked: next(asked, True))
        except Stopped:
            stops += 1
            assert stops < 100
            assert parts.state() in (RunState.partial, RunState.new)
    assert stops > 4
    assert differences(parts, whole) == []


@pytest.mark.slow
def test_a_run_that_another_process_trains_is_left_to_it(tmp_path):
    folder = planned(tmp_path, "duration='1 steps'")
    with folder.lock(), pytest.raises(Busy):
        train_folder(folder, ignore)
    assert folder.failure() is None


def test_failed_tries_are_counted_until_they_are_forgotten(tmp_path):
    folder = RunFolder(tmp_path)
    assert (folder.failed_tries(), folder.failure()) == (0, None)
    folder.fail("first\nreason")
    folder.fail("second\nreason")
    assert (folder.failed_tries(), folder.failure()) == (2, "second\nreason\n")
    folder.forget_failure()
    assert (folder.failed_tries(), folder.failure()) == (0, None)


@pytest.mark.parametrize("given", [0.0, -1.0, "soon"])
def test_a_timeout_that_is_no_positive_number_is_refused(given):
    with pytest.raises(
        ConfigError, match=f"hydra.launcher.timeout={given}: expected minutes, a number above 0, or null"
    ):
        parse_launcher(LocalConfig, {**asdict(local_defaults()), "timeout": given})


@pytest.mark.slow
def test_a_single_run_that_is_asked_to_stop_writes_a_checkpoint_in_the_middle_of_an_epoch(tmp_path):
    """By the end of its terminal; grids, by SIGINT: test_main_job.py; SIGTERM: test_signals.py."""
    process = Program([BAD, "seed=8", "tracking=none", *TINY_RUN, "batch_size=2", f"paths.output={tmp_path}"])
    wait_for(lambda: list(tmp_path.glob("runs/*/stepped")))
    os.kill(process.pid, signal.SIGHUP)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 129, stderr
    assert stderr.strip().endswith("interrupted; the same command goes on from the runs' last checkpoints")
    assert "Traceback" not in stderr
    (checkpoint,) = tmp_path.glob("runs/*/checkpoint.pt")
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 57, "steps of an epoch"
    assert not list(tmp_path.glob("runs/*/failure.txt"))


def test_a_terminal_that_is_closed_asks_and_never_insists():
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)  # of the shell, beside the kernel's
        assert request.signal == signal.SIGHUP
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)


def test_nohup_holds(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with launching(tmp_path), StopRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not request.made()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_asked_twice_it_stops_at_once(tmp_path):
    process = Program([BAD, *GRID, "seed=0,6", f"paths.output={tmp_path}"])
    wait_for(lambda: len(list(tmp_path.glob("runs/*/stepped"))) == 2)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "stopping:" in process.stderr())
    time.sleep(1)
    assert process.poll() is None, "a run that hangs is waited for"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "a second signal stops at once" in stderr and "Traceback" not in stderr


@pytest.mark.slow
def test_bad_runs_fail_alone(tmp_path):
    """One hangs; beside it one raises, one crashes, one is killed and one finds too little memory once; one is good.

    Processes start warm, after the check of the models: none but the one that hangs is silent for long.
    """
    job = [*GRID, "seed=4,0,1,2,3,5", f"paths.output={tmp_path}", "hydra.launcher.timeout=0.15"]
    answer = programs.run([BAD, *job])
    assert answer.returncode == 1, answer.stderr
    states = {seed: folder.state().value for seed, folder in by_seed(tmp_path).items()}
    assert states == {0: "finished", 5: "finished"} | dict.fromkeys((1, 2, 3, 4), "failed"), answer.stderr
    assert "4 of 6 runs failed; the same command tries them again" in answer.stderr
    for row in (
        "seed1  RuntimeError: seed 1 is unlucky  (",
        "seed2  the process was killed by signal 11 (SIGSEGV)  (",
        "seed3  the process was killed by signal 9 (SIGKILL; the system sends it when memory runs out)  (",
        "seed4  no progress for 0.15 minutes (hydra.launcher.timeout): killed  (",
    ):
        assert row in answer.stderr
    for why in ("killed, perhaps for lack of memory", "out of memory"):
        assert answer.stderr.count(f"{why}: tried once more, alone on this machine") == 1
    tries = {seed: folder.failed_tries() for seed, folder in by_seed(tmp_path).items()}
    assert tries == {0: 0, 1: 1, 2: 1, 3: 2, 4: 1, 5: 0}


@pytest.mark.parametrize(
    ("failed", "left", "expected"),
    [
        (["a"], [], "1 of 4 runs failed; the same command tries them again\n  a  no luck"),
        (
            ["a"],
            ["b", "c"],
            "1 of 4 runs failed, 2 not finished; the same command tries them again\n  a  no luck\n  b  it",
        ),
        ([], ["b"], "1 of 4 runs not finished; the same command tries them again\n  b  it never began"),
    ],
)
def test_runs_that_were_cancelled_are_not_called_failed(failed, left, expected, tmp_path: Path):
    runs = {name: hand_made(tmp_path, name) for name in "abcd"}
    for name, run in runs.items():
        if name in failed:
            run.fail("no luck")
        elif name not in left:
            run.finish(RunResult("finished", {"test/top1": 0.5}, 1, 1))
    sweep = SweepFolder(tmp_path / "sweeps" / "one")
    with pytest.raises(FailedRunsError) as error:
        conclude(sweep, list(runs.values()), attempts=None)
    assert str(error.value).startswith(expected) and len(error.value.reasons) == len(failed + left)


class Unlucky(InProcess):
    """Trains nothing: of every run, the try fails."""

    def __init__(self, attempts):
        self.attempts = attempts

    def start(self, missing, display, notify):
        for folder in missing:
            folder.fail("no luck")


@pytest.mark.slow
def test_a_command_tries_its_failed_runs_again_so_many_times_and_speaks_of_no_others(tmp_path, capfd):
    one = compose_run(*SHORT, "tracking=none", f"paths.output={tmp_path}")

    def said(seeds: int, attempts: int) -> tuple[str, str]:
        with pytest.raises(FailedRunsError) as failed:
            run_sweep([replace(one, seed=seed) for seed in range(seeds)], Unlucky(attempts))
        return capfd.readouterr().err.splitlines()[0], str(failed.value).splitlines()[0]

    opening, advice = said(1, 3)
    assert opening.startswith("1 run in digits-") and ":" not in opening
    assert advice == "1 of 1 runs failed; the same command tries them again"
    opening, advice = said(3, 3)
    assert opening.startswith("3 runs in ") and opening.endswith(": 1 failed run is tried again (try 2 of 3)")
    opening, advice = said(3, 2)
    assert opening.endswith(": 2 failed runs are tried again (try 2 of 2), 1 failed 2 times and is skipped")
    assert advice.startswith("3 of 3 runs failed; `headsweep retry ")
    opening, advice = said(1, 4)
    assert opening.startswith("1 run of 3 in ") and opening.endswith(": 1 failed run is tried again (try 3 of 4)")
    assert advice == "1 of 1 runs failed; the same command tries them again"


@pytest.mark.usefixtures("hydra_state")
def test_the_number_of_attempts_is_checked(tmp_path, capsys):
    assert enter("-m", "heads=1,2", "hydra.launcher.attempts=0", f"paths.output={tmp_path}") == 2
    assert "hydra.launcher.attempts=0: expected an integer >= 1" in capsys.readouterr().err
