"""A terminal or a scheduler signals every process of a job: only the launcher answers, and nothing is left running."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from commands import TINY, TINY_CELL, wait_for
from composing import compose_run
from headsweep.data.datasets import open_splits
from headsweep.data.loader import EvalLoader
from headsweep.plan.plan import make_plan
from programs import Program

SABOTAGE = str(Path(__file__).with_name("sabotage.py"))
kept = []  # what a process holds to its end


@pytest.mark.slow
def test_a_job_that_is_signalled_as_a_whole_stops_within_an_epoch_and_leaves_nothing(tmp_path, streamed):
    """A grid of two runs and a single run; two processes decode the images of each."""
    job = ["seed=8", "duration='600 epochs'", "tracking=none", *TINY_CELL, "batch_size=4", *streamed]  # slow steps
    grid = [SABOTAGE, "-m", "heads=1,2", *job, *TINY[len(TINY_CELL) :], f"paths.output={tmp_path / 'grid'}"]
    single = [SABOTAGE, *job, f"paths.output={tmp_path / 'single'}"]
    grid, single = (Program(words, new_session=True) for words in (grid, single))
    try:
        # Launcher and resource tracker, in the grid a forkserver and two runs, and two decoders a run.
        wait_for(lambda: len(members(grid.pid)) >= 9 and len(members(single.pid)) >= 4)
        for launcher in (grid, single):
            before = members(launcher.pid)
            for process in before - {launcher.pid}:
                os.kill(process, signal.SIGUSR2)
            time.sleep(0.3)
            assert before <= members(launcher.pid)
        for launcher in (grid, single):
            os.killpg(launcher.pid, signal.SIGTERM)
        for launcher in (grid, single):
            _, stderr = launcher.communicate(timeout=60)
            assert launcher.returncode == 143, stderr
            assert stderr.strip().endswith("interrupted; the same command goes on from the runs' last checkpoints")
            wait_for(lambda launcher=launcher: not members(launcher.pid))
    finally:
        for process in members(grid.pid) | members(single.pid):
            os.kill(process, signal.SIGKILL)
    assert not list(tmp_path.glob("*/runs/*/failure.txt"))
    checkpoints = [torch.load(path, weights_only=True) for path in tmp_path.glob("*/runs/*/checkpoint.pt")]
    assert [checkpoint["losses"] is not None for checkpoint in checkpoints] == 3 * [True], "not of a whole epoch"


@pytest.mark.slow
def test_decoders_end_with_a_process_that_ends_while_it_holds_them(tmp_path, streamed):
    """Deaf to SIGTERM, they hear it from their parent, which would wait for them for ever."""
    process = multiprocessing.get_context("forkserver").Process(target=hold_decoders, args=(tmp_path, streamed))
    process.start()
    process.join(60)
    code = process.exitcode
    process.kill()  # or pytest would wait for it
    assert code == 0


def hold_decoders(output: Path, overrides: list[str]) -> None:
    run = make_plan([compose_run(*overrides, f"paths.output={output}")]).runs[0].run
    test = open_splits(run.dataset, run.seed, run.loader, run.debug).test
    kept.append(iter(EvalLoader(test, run.dataset, 4, torch.device("cpu"), run.loader.workers)))
    next(kept[0])


def members(group: int) -> set[int]:
    """The living processes of a process group."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if int(its_group) == group and state != "Z":
            found.add(int(path.parent.name))
    return found
